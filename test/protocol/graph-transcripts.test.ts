// SPDX-License-Identifier: Apache-2.0
// Commands on the graph other than reopening: the same conversation with a real daemon.

import { join } from 'node:path';
import { describe, it } from 'vitest';

import { compare, hasReference, hello, top } from '../helpers/reference.js';
import { command } from '../helpers/transcript.js';
import type { Line } from '../helpers/transcript.js';

const add = (options: Line): string => command('blockdev-add', options);
const resize = (args: Line): string => command('block_resize', args);
const flat = command('query-named-block-nodes', { flat: true });

/** Name, size and threshold of the nodes with a name. */
function sizes(line: Line): Line {
  const list = line['return'];
  if (!Array.isArray(list)) return line;
  const texts = (list as Line[]).map((node) => {
    const size = (node['image'] as Line)['virtual-size'];
    return `${String(node['node-name'])} ${String(size)} ${String(node['write_threshold'])}`;
  });
  return { return: texts.filter((text) => !text.startsWith('#')).toSorted() };
}

/** The order of nodes is nobody's promise. */
function byName(line: Line): Line {
  const list = line['return'];
  if (!Array.isArray(list)) return line;
  const text = (node: Line): string => `${String(node['node-name'])} ${'parent' in node}`;
  const order = (a: Line, b: Line): number => (text(a) < text(b) ? -1 : 1);
  return { return: (list as Line[]).toSorted(order) };
}

/** A reply comes before or after what its command caused; how much is exceeded is chance. */
function once(line: Line): Line | null {
  if (JSON.stringify(line['return']) === '{}') return null;
  return line['event'] === 'BLOCK_WRITE_THRESHOLD' ? { event: line['event'] } : sizes(line);
}

describe.skipIf(!hasReference)('as a real daemon answers', () => {
  it('a node grows, or the refusal says why not', () =>
    compare((directory) => {
      const file = { driver: 'file', filename: join(directory, 'base.qcow2') };
      return [
        hello,
        add(top(directory, { backing: null })),
        add({ driver: 'null-co', 'node-name': 'n', size: 65536 }),
        add({ driver: 'raw', 'node-name': 'w', file: 'n', offset: 0, size: 4096 }),
        add({ ...file, 'node-name': 'f', 'read-only': true }),
        resize({ size: 1024 }),
        resize({ size: 1024, device: 'top' }),
        resize({ size: 1024, 'node-name': 'nope' }),
        resize({ size: -1, 'node-name': 'top' }),
        resize({ size: -1, 'node-name': 'nope' }),
        resize({ size: '1', 'node-name': 'top' }),
        resize({ 'node-name': 'top' }),
        resize({ size: 1000, 'node-name': 'top' }),
        resize({ size: 8388608, 'node-name': 'top' }),
        resize({ size: 8388608, 'node-name': 'top', device: 'top' }),
        resize({ size: 8388609, 'node-name': 'top' }),
        resize({ size: 131072, 'node-name': 'n' }),
        resize({ size: 8192, 'node-name': 'w' }),
        resize({ size: 131072, 'node-name': 'f' }),
        flat,
      ];
    }, sizes));

  it('a file and a raw image grow and shrink', () =>
    compare((directory) => {
      const filename = join(directory, 'base.qcow2');
      return [
        hello,
        add({ driver: 'file', 'node-name': 'f', filename }),
        add({ driver: 'raw', 'node-name': 'r', file: 'f' }),
        resize({ size: 8388608, 'node-name': 'f' }),
        resize({ size: 8388608, 'node-name': 'r' }),
        flat,
        resize({ size: 1024, 'node-name': 'r' }),
        resize({ size: 1025, 'node-name': 'f' }),
        flat,
        resize({ size: 0, 'node-name': 'r' }),
        flat,
      ];
    }, sizes));

  it('an overlay and a window keep their node from being resized', () =>
    compare((directory) => [
      hello,
      add({
        driver: 'qcow2',
        'node-name': 'base',
        file: { driver: 'file', filename: join(directory, 'base.qcow2') },
      }),
      add(top(directory, { backing: 'base' })),
      resize({ size: 8388608, 'node-name': 'base' }),
      resize({ size: 8388608, 'node-name': 'base', device: 'base' }),
      resize({ size: 8388608, 'node-name': 'top' }),
      flat,
    ], sizes));

  it('a write threshold is set, seen and taken back', () =>
    compare((directory) => {
      const set = (name: string, threshold: unknown): string =>
        command('block-set-write-threshold', { 'node-name': name, 'write-threshold': threshold });
      return [
        hello,
        add(top(directory)),
        set('nope', 1),
        set('top', 4096),
        flat,
        set('top', 8192),
        flat,
        set('top', 0),
        flat,
      ];
    }, sizes));

  it('there are no devices, and nodes nobody wrote to have no numbers', () =>
    compare((directory) => [
      hello,
      add(top(directory)),
      add({ driver: 'null-co', 'node-name': 'n' }),
      add({ driver: 'raw', 'node-name': 'r', file: 'n' }),
      command('query-block'),
      command('query-block', { x: 1 }),
      command('query-blockstats'),
      command('query-blockstats', { 'query-nodes': false }),
      command('query-blockstats', { 'query-nodes': true }),
    ], byName));

  it('a node that is written up to a threshold says so once', () =>
    compare((directory) => [
      hello,
      add(top(directory, { backing: null })),
      add({ driver: 'null-co', 'node-name': 'zero', size: 1048576, 'read-zeroes': true }),
      add({ driver: 'null-co', 'node-name': 'sink', size: 1048576 }),
      command('block-set-write-threshold', { 'node-name': 'sink', 'write-threshold': 1 }),
      {
        send: command('blockdev-backup', {
          'job-id': 'j',
          device: 'zero',
          target: 'sink',
          sync: 'full',
        }),
        until: 'null j',
      },
      flat,
    ], once));
});
