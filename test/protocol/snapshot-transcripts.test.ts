// SPDX-License-Identifier: Apache-2.0
// blockdev-snapshot-sync into names of every kind, compared with a real daemon.

import { join } from 'node:path';
import { describe, it } from 'vitest';

import {
  compare,
  graphByNames,
  hasReference,
  hello,
  namesInOneOrder,
  openAll,
} from '../helpers/reference.js';
import { command, untilEvent } from '../helpers/transcript.js';
import type { Line } from '../helpers/transcript.js';

const add = (options: Line): string => command('blockdev-add', options);
const nodes = command('query-named-block-nodes', { flat: true });

function into(file: string, more: Line = {}): string {
  const names = { 'node-name': 'n', 'snapshot-file': file, 'snapshot-node-name': 's' };
  return command('blockdev-snapshot-sync', { ...names, ...more });
}

const existing = { mode: 'existing' };

/** Names and links of the nodes; what `json:` names say in one order. */
function links(line: Line): Line {
  const list = line['return'];
  if (!Array.isArray(list)) return graphByNames(line);
  return {
    return: (list as Line[]).map((node) =>
      ['node-name', 'drv', 'ro', 'file', 'backing_file', 'backing_file_depth']
        .map((member) => sorted(node[member]))
        .join(' '),
    ).toSorted(),
  };
}

function sorted(value: unknown): string {
  const text = String(value);
  if (!text.startsWith('json:')) return text;
  return JSON.stringify(inOrder(JSON.parse(text.slice('json:'.length))));
}

function inOrder(value: unknown): unknown {
  if (typeof value !== 'object' || value === null) return value;
  const members = Object.entries(value).toSorted(([a], [b]) => (a < b ? -1 : 1));
  return members.map(([name, member]) => [name, inOrder(member)]);
}

describe.skipIf(!hasReference)('a snapshot into a name, as a real daemon makes it', () => {
  it('refuses names and formats that cannot be made or opened', () =>
    compare((directory) => {
      const path = (name: string): string => join(directory, name);
      const both = ['null-co://', 'foo:bar', path('no/x')];
      const made = [...both, 'blkdebug::x', 'blkverify:x:y', 'json:{}'];
      const opened = [...both, 'json:{"driver":"file","filename":"x"}'];
      const formats = ['raw', 'nope', 'file', 'throttle', 'snapshot-access', 'null-co'];
      return [
        hello,
        add({ driver: 'null-co', 'node-name': 'n', size: 1_048_576 }),
        add({ driver: 'raw', 'node-name': 'user', file: 'n' }),
        ...made.map((name) => into(name)),
        ...opened.map((name) => into(name, { ...existing, format: 'copy-on-read' })),
        ...formats.map((format) => into(path('new.img'), { format })),
        into('null-co://', { ...existing, format: 'raw' }),
        into('null-co://', { ...existing, format: 'null-co' }),
        into(path('base.qcow2'), { ...existing, format: 'file' }),
        into(path('base.qcow2'), { ...existing, format: 'throttle' }),
        into(`blkdebug::${path('base.qcow2')}`, { ...existing, format: 'blkdebug' }),
        into(path('new.img'), { 'snapshot-node-name': '-bad-' }),
        into(path('new.img'), { 'snapshot-node-name': 'n' }),
        nodes,
      ];
    }, links));

  it('takes protocol names and options of an image that is there', () =>
    compare((directory) => {
      const path = (name: string): string => join(directory, name);
      const nested = { driver: 'qcow2', file: { driver: 'file', filename: path('base.qcow2') } };
      const bare = { file: { driver: 'file', filename: path('top.qcow2') } };
      const over = (node: string, name: string): Line => ({
        'node-name': node,
        'snapshot-node-name': name,
      });
      return [
        hello,
        add({ driver: 'null-co', 'node-name': 'n', size: 1_048_576 }),
        add({ driver: 'raw', 'node-name': 'user', file: 'n' }),
        into(`file:${path('new.img')}`),
        into(`json:${JSON.stringify(nested)}`, { ...existing, ...over('s', 's2') }),
        into(`blkdebug::${path('top.qcow2')}`, { ...existing, ...over('s2', 's3') }),
        into(`json:${JSON.stringify(bare)}`, { ...existing, ...over('s3', 's4') }),
        into(path('new.img'), over('s3', 's5')),
        nodes,
      ];
    }, links));

  it('puts the target of a mirror on another node (allow-write-only-overlay)', () =>
    compare(
      (directory) => [
        hello,
        ...openAll(directory),
        add({ driver: 'null-co', 'node-name': 'below', size: 4_194_304 }),
        untilEvent('BLOCK_JOB_READY', 'blockdev-mirror', {
          'job-id': 'm',
          device: 'over',
          target: 'copy',
          sync: 'top',
        }),
        command('blockdev-snapshot', { node: 'below', overlay: 'copy' }),
        command('x-debug-query-block-graph'),
      ],
      (line) => {
        const data = line['data'] as { readonly status?: string } | undefined;
        // The graph change is seen as a short pause, whose moment is chance.
        const isPause = data?.status === 'standby' || data?.status === 'ready';
        return isPause ? null : namesInOneOrder(line);
      },
    ));
});
