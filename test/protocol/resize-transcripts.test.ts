// SPDX-License-Identifier: Apache-2.0
// block_resize both ways, compared with a real daemon.

import { join } from 'node:path';
import { describe, it } from 'vitest';

import { compare, hasReference, hello } from '../helpers/reference.js';
import { command } from '../helpers/transcript.js';
import type { Line } from '../helpers/transcript.js';

const add = (options: Line): string => command('blockdev-add', options);
const resize = (name: string, size: number | bigint): string =>
  command('block_resize', { 'node-name': name, size });

/** When freed tables leave the file differs; the rest is the same. */
function sizes(line: Line): Line {
  const list = line['return'];
  if (!Array.isArray(list)) return line;
  const named = (list as Line[]).filter((node) => node['node-name'] !== '#block');
  return {
    return: named.map((node) => [node['node-name'], (node['image'] as Line)['virtual-size']]),
  };
}

describe.skipIf(!hasReference)('a resize, as a real daemon does it', () => {
  it('makes images smaller and larger, and refuses what cannot be', () =>
    compare((directory) => {
      const file = (name: string): Line => ({ driver: 'file', filename: join(directory, name) });
      const nodes = command('query-named-block-nodes', { flat: true });
      const window = { driver: 'raw', 'node-name': 'w', offset: 512, size: 1024, file: 'n' };
      return [
        hello,
        add({ driver: 'qcow2', 'node-name': 'q', file: file('base.qcow2') }),
        resize('q', 327_680),
        nodes,
        ...[100, 1000, 512].map((size) => resize('q', size)),
        nodes,
        resize('q', 8_388_608),
        resize('q', 0),
        nodes,
        resize('q', 4_194_304),
        add({ driver: 'blkdebug', 'node-name': 'd', image: 'q' }),
        resize('d', 1_048_576),
        resize('d', 1_048_577),
        nodes,
        resize('q', -1),
        add({ driver: 'null-co', 'node-name': 'n', size: 65_536 }),
        add(window),
        resize('n', 512),
        resize('w', 512),
        add({ driver: 'raw', 'node-name': 'r', 'read-only': true, file: file('top.qcow2') }),
        resize('r', 512),
        nodes,
      ];
    }, sizes));
});
