// SPDX-License-Identifier: Apache-2.0
// Snapshots within images in use: commands, transaction action, listings and refusals, compared
// with a real daemon. Dates are of the moment and are left out.

import { describe, it } from 'vitest';

import {
  compare,
  hasReference,
  hello,
  isDrainPause,
  openAll,
  withoutOffset,
  withoutSizes,
} from '../helpers/reference.js';
import { command, untilEvent } from '../helpers/transcript.js';
import type { Line } from '../helpers/transcript.js';

const make = (device: string, name: string): string =>
  command('blockdev-snapshot-internal-sync', { device, name });
const remove = (device: string, which: Line = {}): string =>
  command('blockdev-snapshot-delete-internal-sync', { device, ...which });
const nodes = command('query-named-block-nodes');

function actions(list: readonly (readonly [string, Line])[], properties?: Line): string {
  const data = list.map(([type, rest]) => ({ type, data: rest }));
  return command('transaction', { actions: data, ...(properties && { properties }) });
}

const internal = (device: string, name: string): readonly [string, Line] => [
  'blockdev-snapshot-internal-sync',
  { device, name },
];

function withoutDates(line: Line): Line {
  return JSON.parse(
    JSON.stringify(withoutSizes(line), (key, value: unknown) =>
      /^(date|vm-clock)-n?sec$/.test(key) || key === 'timestamp' ? 0 : value,
    ),
  ) as Line;
}

describe.skipIf(!hasReference)('snapshots within images, as a real daemon makes them', () => {
  it('are made, listed and deleted, alone and in transactions', () =>
    compare((directory) => [
      hello,
      ...openAll(directory),
      make('over', 's1'),
      make('over', 's1'),
      make('over', ''),
      make('nope', 'x'),
      make('top', 'x'),
      make('copy-file', 'x'),
      command('blockdev-snapshot-internal-sync', { device: 'over' }),
      make('over', 'second one'),
      make('over', '1'),
      make('copy', 'x'.repeat(300)),
      nodes,
      remove('over'),
      remove('over', { name: 'zz' }),
      remove('over', { id: '9' }),
      remove('over', { id: '1', name: 'second one' }),
      remove('nope', { id: '1' }),
      remove('top', { id: '1' }),
      remove('over', { name: 's1' }),
      remove('over', { id: '2', name: 'second one' }),
      actions([internal('over', 't1'), ['abort', {}]]),
      actions([internal('over', 't1'), internal('over', 't1')]),
      nodes,
      actions([internal('over', 't1'), internal('copy', 't2')]),
      actions([internal('over', 't3')], { 'completion-mode': 'grouped' }),
      nodes,
    ], withoutDates));

  it('are refused where the node cannot hold them or somebody is in the way', () =>
    compare((directory) => [
      hello,
      ...openAll(directory),
      command('blockdev-add', { driver: 'null-co', 'node-name': 'null', size: 1_048_576 }),
      make('null', 'x'),
      remove('null', { name: 'x' }),
      command('blockdev-add', { driver: 'copy-on-read', 'node-name': 'cor', file: 'copy' }),
      make('cor', 'through a filter'),
      make('copy', 'x'),
      remove('cor', { name: 'nope' }),
      nodes,
      remove('cor', { name: 'through a filter' }),
      command('blockdev-del', { 'node-name': 'cor' }),
      command('blockdev-backup', {
        'job-id': 'j', device: 'over', target: 'copy', sync: 'full', speed: 1,
      }),
      make('over', 'x'),
      remove('over', { name: 'x' }),
      make('copy', 'x'),
      untilEvent('BLOCK_JOB_CANCELLED', 'block-job-cancel', { device: 'j', force: true }),
      command('blockdev-del', { 'node-name': 'copy' }),
      command('blockdev-add', {
        driver: 'qcow2',
        'node-name': 'ro',
        'read-only': true,
        file: 'copy-file',
      }),
      make('ro', 'x'),
    ], (line) => (isDrainPause(line) ? null : withoutOffset(withoutDates(line)))));
});
