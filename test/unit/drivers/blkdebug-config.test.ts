// SPDX-License-Identifier: Apache-2.0
// The file of rules: what it says, what it may get wrong, and names of images that name it.
import { describe, expect, it } from 'vitest';

import type { Driver, Graph, NodeOptions } from '../../../src/block/index.js';
import { blkdebug } from '../../../src/drivers/filters/blkdebug/index.js';
import { parseConfig } from '../../../src/drivers/filters/blkdebug/config-file.js';
import { blkverify } from '../../../src/drivers/filters/blkverify/index.js';
import {
  errorOf,
  graphOn,
  makeFile,
  MemoryHost,
  pattern,
  READ_WRITE,
} from '../../helpers/graph.js';

const inject = (lines: string): string => `[inject-error]\nevent = "write_aio"\n${lines}`;

describe('a file of rules', () => {
  it('says the same as the options', () => {
    const text = [
      '# a comment',
      '',
      '[inject-error "first"]',
      '  event = "l2_load" trailing words',
      'errno = "0x1c"',
      'sector = "-1"',
      'once = "on"',
      '[set-state]\r',
      'event = "write_aio"\r',
      'state = "1"',
      'new_state = "010"',
      '[inject-error]',
      'event = "none"',
      'iotype = "flush"',
      'immediately = "off"',
      'state = "4294967298"',
    ].join('\n');
    expect(parseConfig(text)).toEqual({
      'inject-error': [
        { event: 'l2_load', errno: 28n, sector: -1n, once: true },
        { event: 'none', iotype: 'flush', immediately: false, state: 2n },
      ],
      'set-state': [{ event: 'write_aio', state: 1n, new_state: 8n }],
    });
    expect(parseConfig('')).toEqual({ 'inject-error': [], 'set-state': [] });
  });

  it.each([
    ['event = "none"\n', 'no group defined'],
    ['[]\n', 'no group defined'],
    ['[foo]\n', "There is no option group 'foo'"],
    ['[ inject-error ]\n', "There is no option group ' inject-error '"],
    ['[__proto__]\n', "There is no option group '__proto__'"],
    ['[inject-error]\nerrno = "1"\n', 'Missing event name for rule'],
    ['[inject-error]\nevent = none\n', 'invalid parameter value: '],
    ['[inject-error]\nevent = "nope"\n', 'invalid parameter value: nope'],
    ['[inject-error]\n   \n', 'parse error'],
    ['[inject-error "9"]\n', "Parameter 'id' expects an identifier"],
    ['[set-state "a"]\n[set-state "a"]\n', "Duplicate ID 'a' for set-state"],
    [inject('foo = "1"'), "Invalid parameter 'foo'"],
    [inject('errno="5"'), "Invalid parameter 'errno=\"5\"'"],
    [inject('errno = "28k"'), "Parameter 'errno' expects a number"],
    [inject('errno = ""'), "Parameter 'errno' expects a number"],
    [
      inject('errno = "18446744073709551616"'),
      "Value '18446744073709551616' is too large for parameter 'errno'",
    ],
    [inject('once = "maybe"'), "Parameter 'once' expects 'on' or 'off'"],
    [inject('iotype = "none"'), 'invalid parameter value: none'],
    ['[set-state]\nerrno = "1"\n', "Invalid parameter 'errno'"],
  ])('%j is refused', (text, message) => {
    expect(() => parseConfig(text)).toThrow(message);
  });
});

describe('names of images with blkdebug and blkverify', () => {
  function stage(): { readonly host: MemoryHost; readonly graph: Graph } {
    const host = new MemoryHost();
    const more = [blkdebug, blkverify] as unknown as readonly Driver<never>[];
    return { host, graph: graphOn(host, more) };
  }

  it('the rules of the file named act before those of the options', async () => {
    const { host, graph } = stage();
    await makeFile(host, '/disk', 65_536);
    await makeFile(host, '/rules', Buffer.from('[inject-error]\nevent = "none"\nerrno = "28"\n'));
    const image = { driver: 'file', filename: '/disk' };
    const more = { config: '/rules', 'inject-error': [{ event: 'none', errno: 13 }] };
    const node = await graph.open({ driver: 'blkdebug', image, ...more } as NodeOptions);
    const user = await graph.attach(node, 'guest', READ_WRITE);
    expect(await errorOf(() => user.flush())).toMatchObject({ errno: 'ENOSPC' });
  });

  it('open again what they were made of', async () => {
    const { host, graph } = stage();
    await makeFile(host, '/disk', pattern(65_536));
    await makeFile(host, '/rules', Buffer.from('[inject-error]\nevent = "none"\nsector = "9"\n'));
    for (const name of ['blkdebug:/rules:/disk', 'blkdebug::/disk', 'blkverify:/disk:/disk']) {
      const node = await graph.openImage(name, 'raw', true);
      expect(node.filename).toBe(name);
      await graph.close(node);
    }
  });

  it('without their second part, and with files that are not there, are refused', async () => {
    const { host, graph } = stage();
    await makeFile(host, '/disk', 65_536);
    const open = (path: string): Promise<Error> =>
      errorOf(() => graph.openImage(path, null, true));
    const both = 'blkdebug requires both config file and image path';
    expect((await open('blkdebug:/disk')).message).toContain(both);
    const twice = 'blkverify requires raw copy and original image path';
    expect((await open('blkverify:/disk')).message).toContain(twice);
    expect((await open('blkverify::/disk')).message).toContain("'file' block driver requires");
    const gone = 'Could not read blkdebug config file: No such file or directory';
    expect((await open('blkdebug:/gone:/disk')).message).toContain(gone);
    expect([...graph.nodes]).toEqual([]);
  });
});
