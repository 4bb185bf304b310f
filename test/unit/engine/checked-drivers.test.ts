// SPDX-License-Identifier: Apache-2.0
// Options in names of images may be anything; what opens has seen them checked.
import { expect, it } from 'vitest';

import { BlockError } from '../../../src/base/index.js';
import { createEngine } from '../../../src/engine/index.js';
import { MemoryHost } from '../../../src/host/index.js';
import { errorOf } from '../../helpers/graph.js';

it('options in a name are refused where their types are wrong, else converted', async () => {
  const host = new MemoryHost();
  host.putFile('/disk', new Uint8Array(4096));
  const { graph } = await createEngine({ host });
  const file = { driver: 'file', filename: '/disk' };
  const bad: readonly Readonly<Record<string, unknown>>[] = [
    { driver: 'raw', offset: 'abc', file },
    { driver: 'raw', offset: -512, file },
    { driver: 'blkdebug', image: file, 'inject-error': 5 },
    { driver: 'blkdebug', image: file, 'inject-error': [{ event: {} }] },
    { driver: 'raw', size: [1], file },
    { driver: 'raw', file, toString: 'x' },
    { driver: 'raw', file, 'force-share': 'maybe' },
    { driver: 'raw', file, 'read-only': 1 },
    { driver: 'raw', file, 'auto-read-only': {} },
    { driver: 'raw', file, cache: 'none' },
    { driver: 'raw', file, cache: { direct: 'maybe' } },
    { driver: 'raw', file, cache: { other: true } },
    { driver: 'throttle', 'throttle-group': { a: 1 }, file },
  ];
  for (const options of bad) {
    const opened = graph.openImage(`json:${JSON.stringify(options)}`, null, true);
    expect(await errorOf(() => opened)).toBeInstanceOf(BlockError);
  }
  expect([...graph.nodes]).toEqual([]);
  const texts = { driver: 'raw', offset: '1024', size: 2048, file };
  const node = await graph.openImage(`json:${JSON.stringify(texts)}`, null, true);
  expect(node.length).toBe(2048);
  await graph.close(node);
  const flags = { driver: 'raw', 'force-share': 'on', cache: { 'no-flush': 'on' }, file };
  const shared = await graph.openImage(`json:${JSON.stringify(flags)}`, null, true);
  expect(shared.options).toMatchObject({ 'force-share': true, cache: { 'no-flush': true } });
  await graph.close(shared);
});
