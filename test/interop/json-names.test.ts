// SPDX-License-Identifier: Apache-2.0
// The name of every node, letter by letter as the real daemon gives it, and opened again.

import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it, onTestFinished } from 'vitest';

import { createEngine } from '../../src/engine/index.js';
import { openDefaultHost } from '../../src/host/index.js';
import { peer } from '../helpers/peers.js';
import { compare, hasReference, hello } from '../helpers/reference.js';
import { command } from '../helpers/transcript.js';
import type { Line } from '../helpers/transcript.js';

const nothing = { driver: 'null-co' };
const sized = { driver: 'null-co', size: 1_048_576, 'read-zeroes': true, 'latency-ns': 5 };

/** Options of one node each, under the name that the test gives it. */
const NODES: readonly [name: string, options: (file: (name: string) => Line) => Line][] = [
  ['file', (file) => file('top.qcow2')],
  ['null-co', () => sized],
  ['null-aio', () => ({ driver: 'null-aio', size: 1_073_741_824 })],
  ['raw', (file) => ({ driver: 'raw', file: file('base.qcow2') })],
  ['raw window', (file) => ({ driver: 'raw', offset: 512, size: 1024, file: file('base.qcow2') })],
  ['raw over null', () => ({ driver: 'raw', file: sized })],
  ['raw at 0', () => ({ driver: 'raw', offset: 0, file: { driver: 'raw', file: nothing } })],
  ['raw over blkdebug', () => ({ driver: 'raw', file: { driver: 'blkdebug', image: nothing } })],
  [
    'raw over limits',
    () => ({ driver: 'raw', file: { driver: 'blkdebug', align: 512, image: nothing } }),
  ],
  ['qcow2', (file) => ({ driver: 'qcow2', file: file('top.qcow2') })],
  ['qcow2 alone', (file) => ({ driver: 'qcow2', file: file('top.qcow2'), backing: null })],
  [
    'qcow2 over another',
    (file) => ({
      driver: 'qcow2',
      file: file('top.qcow2'),
      backing: { driver: 'raw', file: file('base.qcow2') },
      'lazy-refcounts': false,
    }),
  ],
  [
    'qcow2 over its own',
    (file) => ({
      driver: 'qcow2',
      file: file('top.qcow2'),
      backing: { driver: 'qcow2', file: file('base.qcow2') },
    }),
  ],
  ['throttle', () => ({ driver: 'throttle', 'throttle-group': 'g', file: nothing })],
  ['copy-on-read', () => ({ driver: 'copy-on-read', file: sized })],
  [
    'compress',
    (file) => ({ driver: 'compress', file: { driver: 'qcow2', file: file('base.qcow2') } }),
  ],
  ['blkverify', () => ({ driver: 'blkverify', raw: sized, test: sized })],
  [
    'blkverify of files',
    (file) => ({ driver: 'blkverify', raw: file('top.qcow2'), test: nothing }),
  ],
  ['blklogwrites', () => ({ driver: 'blklogwrites', file: sized, log: nothing })],
  ['quorum', () => ({ driver: 'quorum', 'vote-threshold': 2, children: [nothing, nothing] })],
  [
    'quorum fifo',
    () => ({
      driver: 'quorum',
      'vote-threshold': 1,
      blkverify: false,
      'rewrite-corrupted': false,
      'read-pattern': 'fifo',
      children: [sized, sized],
    }),
  ],
  ['preallocate', (file) => ({ driver: 'preallocate', file: file('top.qcow2') })],
  ['copy-before-write', () => ({ driver: 'copy-before-write', file: nothing, target: nothing })],
  [
    'blkdebug',
    () => ({
      driver: 'blkdebug',
      image: sized,
      align: 512,
      'max-transfer': 512,
      'opt-write-zero': 512,
      'max-write-zero': 512,
      'opt-discard': 512,
      'max-discard': 512,
      'set-state': [{ event: 'none', state: 1, new_state: 2 }],
      'inject-error': [
        { event: 'l2_load', iotype: 'read', state: 1, errno: 5, sector: 1, once: false },
        { event: 'none', immediately: true, sector: 9 },
      ],
    }),
  ],
];

/** Those that do not work read-only, and one whose two sides differ. */
const NOT_AGAIN = new Set([
  'blkverify of files',
  'compress',
  'preallocate',
  'copy-before-write',
  'copy-on-read',
  'blklogwrites',
]);

const readOnly = (options: Line): Line => ({ 'read-only': true, ...options });

describe.skipIf(!hasReference)('names of nodes', () => {
  it.each(NODES)('%s is as the real daemon gives it', async (_name, options) => {
    const names = (line: Line): Line => {
      const list = line['return'];
      if (!Array.isArray(list)) return line;
      const nodes = list as readonly { 'node-name': string; file: string; image: Line }[];
      const found = nodes.filter((node) => node['node-name'] === 'node');
      return { return: found.map(({ file, image }) => [file, image['filename']]) };
    };
    await compare((directory) => {
      const file = (name: string): Line => ({ driver: 'file', filename: join(directory, name) });
      return [
        hello,
        command('object-add', { 'qom-type': 'throttle-group', id: 'g' }),
        command('blockdev-add', { 'node-name': 'node', ...options(file) }),
        command('query-named-block-nodes', { flat: true }),
      ];
    }, names);
  });

  it('open again what they name, also from the header of an overlay', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'names-'));
    onTestFinished(() => rmSync(folder, { recursive: true }));
    const img = peer('qemu-img') as string;
    const path = (name: string): string => join(folder, name);
    for (const name of ['base', 'top']) {
      execFileSync(img, ['create', '-q', '-f', 'qcow2', path(`${name}.qcow2`), '1M']);
    }
    await using engine = await createEngine({ host: openDefaultHost(), lanes: 0 });
    await engine.objects.add({ 'qom-type': 'throttle-group', id: 'g' } as never);
    const file = (name: string): Line =>
      readOnly({ driver: 'file', filename: path(name), 'force-share': true });
    for (const [title, options] of NODES) {
      if (NOT_AGAIN.has(title)) continue;
      const given = readOnly(options(file)) as { readonly driver: string };
      const node = await engine.graph.open(given, { forceShare: true });
      const { filename } = node;
      const format = node.driver.kind === 'protocol' ? 'raw' : node.driver.name;
      await engine.graph.close(node);
      const again = await engine.graph.openImage(filename, null, true, { forceShare: true });
      // What a name opens that is no format's has the format raw above it.
      expect([title, again.filename, again.primary?.filename]).toContain(filename);
      await engine.graph.close(again);
      const overlay = path('overlay.qcow2');
      const backing = ['-b', filename, '-F', format, '-u'];
      execFileSync(img, ['create', '-q', '-f', 'qcow2', ...backing, overlay, '1M']);
      const chain = await engine.graph.openImage(overlay, null, true, { forceShare: true });
      const behind = chain.backing;
      expect([title, behind?.filename, behind?.primary?.filename]).toContain(filename);
      await engine.graph.close(chain);
    }
  });

  it('may spell their members with dots', async () => {
    await using engine = await createEngine({ host: openDefaultHost(), lanes: 0 });
    const name =
      'json:{"driver": "raw", "offset": 512, "file.driver": "blkdebug", "file.align": 4096, ' +
      '"file.image.driver": "null-co", "file.inject-error.0.event": "none", ' +
      '"file.inject-error.0.sector": 7}';
    const node = await engine.graph.openImage(name, null, true);
    expect(node.primary?.limits.requestAlignment).toBe(4096);
    expect(node.filename).toContain('"inject-error.0.sector": 7');
    await engine.graph.close(node);
  });
});
