// SPDX-License-Identifier: Apache-2.0
// Pauses of running jobs while others start, end, reopen and take snapshots, compared with a real
// daemon line by line. Backups that copy nothing by themselves rest all the time, so that nothing
// here is chance.
//
// Left out, since it is different on purpose: a reopen that gives a node another child lets jobs
// below that child go for a moment there; actions of one transaction on several nodes hold all of
// them here before the first is prepared; a pause makes a mirror with a speed go on at once there.

import { join } from 'node:path';
import { describe, it } from 'vitest';

import { compare, hasReference, hello, openAll } from '../helpers/reference.js';
import { command, untilEvent } from '../helpers/transcript.js';
import type { Line, Step } from '../helpers/transcript.js';

const TARGETS = ['n0', 'n1', 'n2', 'n3', 'n4'];

/** The chain base, top, over with targets that need no file. */
function opened(directory: string): Step[] {
  const targets = TARGETS.map((name) =>
    command('blockdev-add', { driver: 'null-co', 'node-name': name, size: 4194304 }),
  );
  return [hello, ...openAll(directory), ...targets];
}

const arguments_ = (id: string, device: string, target: string): Line => ({
  'job-id': id, device, target, sync: 'none',
});
const backup = (id: string, device: string, target: string): string =>
  command('blockdev-backup', arguments_(id, device, target));
const action = (id: string, device: string, target: string): Line => ({
  type: 'blockdev-backup', data: arguments_(id, device, target),
});
const transaction = (actions: readonly Line[], more: Line = {}): string =>
  command('transaction', { actions, ...more });
const cancel = (device: string): string => command('block-job-cancel', { device });
const reopen = (name: string, more: Line = {}): string =>
  command('blockdev-reopen', {
    options: [{ driver: 'qcow2', 'node-name': name, file: `${name}-file`, ...more }],
  });

describe.skipIf(!hasReference)('as a real daemon pauses jobs', () => {
  it('backups of one chain that start and end', () =>
    compare((directory) => [
      ...opened(directory),
      // Targets in another order than jobs: they are what stands still first.
      backup('a', 'base', 'n2'),
      backup('b', 'base', 'n1'),
      backup('c', 'base', 'n0'),
      backup('e', 'top', 'n3'),
      backup('f', 'copy', 'n4'),
      ...['c', 'a', 'f', 'b', 'e'].map(cancel),
    ]));

  it('commands that are refused', () =>
    compare((directory) => [
      ...opened(directory),
      backup('a', 'over', 'n0'),
      backup('b', 'base', 'n1'),
      command('blockdev-snapshot', { node: 'over', overlay: 'top' }),
      command('blockdev-snapshot', { node: 'nope', overlay: 'top' }),
      backup('z', 'nope', 'n4'),
      backup('z', 'base', 'nope'),
      backup('a', 'base', 'n4'),
      backup('z', 'top', 'n1'),
      command('drive-backup', {
        'job-id': 'z', device: 'base', target: join(directory, 'no', 'x'), sync: 'full',
      }),
      transaction([]),
      transaction([{ type: 'abort', data: {} }]),
      transaction([action('z', 'base', 'n3'), { type: 'abort', data: {} }]),
    ]));

  it('reopens of nodes above, among and below them', () =>
    compare((directory) => [
      ...opened(directory),
      backup('a', 'base', 'n0'),
      backup('b', 'base', 'n1'),
      backup('c', 'over', 'n2'),
      reopen('base'),
      reopen('base', { 'read-only': true }),
      reopen('over', { backing: 'top' }),
      reopen('copy'),
      command('blockdev-reopen', {
        options: [{ driver: 'null-co', 'node-name': 'n0', size: 4194304 }],
      }),
    ]));

  it('snapshots of a node and of a target', () =>
    compare((directory) => [
      ...opened(directory),
      backup('a', 'over', 'n1'),
      backup('b', 'base', 'n0'),
      backup('c', 'over', 'n2'),
      command('blockdev-snapshot-sync', {
        'node-name': 'over',
        'snapshot-file': join(directory, 'new.qcow2'),
        'snapshot-node-name': 'new',
      }),
      transaction([{ type: 'blockdev-snapshot', data: { node: 'n0', overlay: 'copy' } }]),
    ]));

  it('transactions of bitmaps and of jobs', () =>
    compare((directory) => [
      ...opened(directory),
      backup('a', 'base', 'n0'),
      transaction([
        { type: 'block-dirty-bitmap-add', data: { node: 'base', name: 'bits' } },
        { type: 'block-dirty-bitmap-clear', data: { node: 'base', name: 'bits' } },
      ]),
      transaction([action('b', 'base', 'n1'), action('c', 'top', 'n2')]),
      transaction([action('e', 'over', 'n3')]),
      ...['b', 'a'].map(cancel),
    ]));

  it('the end of one of several that are grouped', async () => {
    for (const ended of ['a', 'b', 'c']) {
      await compare((directory) => [
        ...opened(directory),
        transaction(
          [action('a', 'base', 'n0'), action('b', 'base', 'n1'), action('c', 'top', 'n2')],
          { properties: { 'completion-mode': 'grouped' } },
        ),
        cancel(ended),
        command('query-jobs'),
      ]);
    }
  });

  it('a stream below them, its end included', () =>
    compare((directory) => [
      ...opened(directory),
      backup('a', 'over', 'n0'),
      backup('b', 'over', 'n1'),
      untilEvent('pending s', 'block-stream', {
        'job-id': 's', device: 'over', 'base-node': 'base', 'auto-finalize': false,
      }),
      command('job-finalize', { id: 's' }),
      command('block-stream', { 'job-id': 't', device: 'copy' }),
    ]));

  it('their user pauses them, too', () =>
    compare((directory) => [
      ...opened(directory),
      backup('a', 'over', 'n0'),
      backup('b', 'base', 'n1'),
      command('job-pause', { id: 'a' }),
      backup('c', 'over', 'n2'),
      command('job-resume', { id: 'a' }),
      command('job-pause', { id: 'b' }),
      command('block-job-cancel', { device: 'b', force: true }),
      command('block_resize', { 'node-name': 'over', size: 8388608 }),
      command('x-blockdev-set-iothread', { 'node-name': 'n4', iothread: null }),
    ]));
});
