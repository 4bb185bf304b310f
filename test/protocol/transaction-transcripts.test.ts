// SPDX-License-Identifier: Apache-2.0
// Transactions and bitmap commands, compared with a real daemon line by line.
//
// Left out is what ends the reference of version 7.2: recording switched on or off by an action
// that is refused, snapshots into files undone, grouped jobs undone, merging of nothing.

import { join } from 'node:path';
import { describe, it } from 'vitest';

import {
  compare,
  graphByNames,
  hasReference,
  hello,
  isDrainPause,
  openAll,
  withoutOffset,
  withoutReplies,
  withoutSizes,
} from '../helpers/reference.js';
import { command, untilEvent } from '../helpers/transcript.js';
import type { Line, Step } from '../helpers/transcript.js';

const nodes = command('query-named-block-nodes', { flat: true });
const graph = command('x-debug-query-block-graph');
const jobs = command('query-jobs');

const action = (type: string, data: Line = {}): Line => ({ type, data });
const on = (node: string, name: string): Line => ({ node, name });
const clear = action('block-dirty-bitmap-clear', on('over', 'a'));
const abort = action('abort');
const grouped = { 'completion-mode': 'grouped' };

function transaction(actions: readonly Line[], properties?: Line): string {
  return command('transaction', {
    actions,
    ...(properties === undefined ? {} : { properties }),
  });
}

function nul(name: string, size = 10_485_760, more: Line = {}): string {
  return command('blockdev-add', { driver: 'null-co', 'node-name': name, size, ...more });
}

function bitmap(node: string, name: string, more: Line = {}): string {
  return command('block-dirty-bitmap-add', { node, name, ...more });
}

function sha(node: string, name: string): string {
  return command('x-debug-block-dirty-bitmap-sha256', { node, name });
}

function backup(id: string, device: string, target: string, more: Line = {}): Line {
  return action('blockdev-backup', { 'job-id': id, device, target, sync: 'full', ...more });
}

/** Bitmaps by node; the names of nodes without one are chance. */
function bitmapsOnly(line: Line): Line {
  const list = line['return'];
  if (!Array.isArray(list)) return line;
  const rows = (list as Line[]).map((node) => {
    const name = (node['node-name'] as string | undefined)?.replace(/^#block\d+/, '#');
    return [name, node['ro'], node['drv'], node['dirty-bitmaps'] ?? null];
  });
  return { return: rows };
}

const FOUR_NODES = [nul('n'), nul('m'), nul('s'), nul('t')];

describe.skipIf(!hasReference)('as a real daemon keeps bitmaps', () => {
  it('granularities, names and recording', () =>
    compare(
      (directory) => [
        hello,
        ...openAll(directory),
        nul('n'),
        nul('empty', 0),
        nul('odd', 1_000_448),
        bitmap('over', 'a'),
        bitmap('over', 'b', { granularity: 512, disabled: true }),
        bitmap('over-file', 'c'),
        bitmap('empty', 'd'),
        bitmap('odd', 'e', { granularity: 1024 }),
        bitmap('n', ''),
        bitmap('n', '', { granularity: 3 }),
        bitmap('over', 'a', { granularity: 3 }),
        bitmap('over', 'a'),
        bitmap('n', 'x', { granularity: 0 }),
        bitmap('n', 'x', { granularity: 256 }),
        bitmap('n', 'x', { granularity: 2 ** 31 }),
        bitmap('n', 'y', { granularity: 2 ** 32 }),
        bitmap('n', 'y', { granularity: -1 }),
        bitmap('n', 'l'.repeat(1023)),
        bitmap('n', 'l'.repeat(1024)),
        bitmap('n', 'y', { persistent: true }),
        bitmap('n', '', { persistent: true }),
        bitmap('no', 'y'),
        bitmap('no', ''),
        command('block-dirty-bitmap-add', { node: 'n' }),
        nodes,
        sha('over', 'a'),
        sha('over', 'b'),
        sha('empty', 'd'),
        sha('odd', 'e'),
        sha('over', 'no'),
        sha('no', 'a'),
        command('block-dirty-bitmap-disable', on('over', 'a')),
        command('block-dirty-bitmap-enable', on('over', 'b')),
        command('block-dirty-bitmap-enable', on('over', 'no')),
        command('block-dirty-bitmap-disable', on('no', 'a')),
        command('block-dirty-bitmap-clear', on('over', 'no')),
        command('block-dirty-bitmap-clear', on('no', 'a')),
        command('block-dirty-bitmap-remove', on('over', 'no')),
        nodes,
        command('block-dirty-bitmap-remove', on('over', 'b')),
        command('blockdev-del', { 'node-name': 'n' }),
        nodes,
      ],
      bitmapsOnly,
    ));

  it('merges of names and of pairs, and what cannot be merged', () => {
    const merge = (target: string, ...bitmaps: readonly unknown[]): string =>
      command('block-dirty-bitmap-merge', { node: 'n', target, bitmaps });
    return compare(
      () => [
        hello,
        nul('n'),
        nul('m'),
        nul('small', 512),
        bitmap('n', 'a'),
        bitmap('n', 'b', { granularity: 512 }),
        bitmap('m', 'c'),
        bitmap('small', 'd'),
        merge('a', 'b'),
        merge('a', 'a'),
        merge('a', 'b', on('m', 'c')),
        merge('a', 'b', on('small', 'd')),
        merge('a', 'b', 'no'),
        merge('no', 'a'),
        merge('no', 'no'),
        merge('a', on('no', 'c')),
        merge('a', on('m', 'no')),
        merge('a', 3),
        merge('a', { node: 'm' }),
        command('block-dirty-bitmap-merge', { node: 'n', target: 'a' }),
        command('block-dirty-bitmap-merge', { node: 'no', target: 'a', bitmaps: ['b'] }),
      ],
    );
  });

  it('bits that a job writes, through reopen, snapshot and resize', () =>
    compare(
      (directory) => [
        hello,
        ...openAll(directory),
        ...['a', 'b', 'c'].map((name, index) =>
          bitmap('copy', name, { granularity: 512 << (index * 3) }),
        ),
        bitmap('copy', 'off', { disabled: true }),
        untilEvent('null j', 'blockdev-backup', backup('j', 'over', 'copy')['data'] as Line),
        nodes,
        ...['a', 'b', 'c', 'off'].map((name) => sha('copy', name)),
        command('block_resize', { 'node-name': 'copy', size: 5_242_880 }),
        nodes,
        sha('copy', 'a'),
        command('blockdev-reopen', {
          options: [
            {
              driver: 'qcow2',
              'node-name': 'copy',
              file: 'copy-file',
              'read-only': true,
            },
          ],
        }),
        command('block-dirty-bitmap-clear', on('copy', 'b')),
        nodes,
        command('blockdev-snapshot-sync', {
          'node-name': 'over',
          'snapshot-file': join(directory, 'new.qcow2'),
          'snapshot-node-name': 'new',
        }),
        nodes,
      ],
      (line) => (isDrainPause(line) ? null : bitmapsOnly(withoutOffset(line))),
    ));
});

describe.skipIf(!hasReference)('as a real daemon does transactions', () => {
  it('shapes, aborts and undone bitmaps', () =>
    compare(
      (directory) => [
        hello,
        ...openAll(directory),
        bitmap('over', 'a'),
        bitmap('over', 'b', { disabled: true }),
        transaction([]),
        transaction([], grouped),
        transaction([], { 'completion-mode': 'no' }),
        transaction([], { no: 1 }),
        command('transaction'),
        transaction([abort]),
        transaction([{ type: 'abort' }]),
        transaction([{ data: {} }]),
        transaction([action('no')]),
        transaction([action('abort', { no: 1 })]),
        transaction([{ ...abort, no: 1 }]),
        transaction([clear, action('block-dirty-bitmap-clear', { node: 'over' })]),
        transaction([action('block-dirty-bitmap-add', on('over', 'c')), abort]),
        transaction([action('block-dirty-bitmap-remove', on('over', 'a')), abort]),
        transaction([
          action('block-dirty-bitmap-disable', on('over', 'a')),
          action('block-dirty-bitmap-enable', on('over', 'b')),
          abort,
        ]),
        nodes,
        transaction([
          action('block-dirty-bitmap-remove', on('over', 'a')),
          action('block-dirty-bitmap-add', on('over', 'a')),
        ]),
        transaction([action('block-dirty-bitmap-remove', on('over', 'a')), clear]),
        transaction([clear, clear, clear]),
        transaction([
          action('block-dirty-bitmap-merge', { node: 'over', target: 'a', bitmaps: ['no'] }),
        ]),
        transaction([action('block-dirty-bitmap-clear', on('over', 'no'))]),
        transaction([action('block-dirty-bitmap-clear', on('no', 'a'))]),
        transaction([action('block-dirty-bitmap-remove', on('over', 'no'))]),
        transaction([
          action('block-dirty-bitmap-disable', on('over', 'a')),
          action('block-dirty-bitmap-add', on('over', 'c')),
          action('block-dirty-bitmap-merge', { node: 'over', target: 'c', bitmaps: ['a', 'b'] }),
          action('block-dirty-bitmap-remove', on('over', 'b')),
        ]),
        nodes,
      ],
      bitmapsOnly,
    ));

  it('actions that end together are backups only', () =>
    compare((directory) => [
      hello,
      ...openAll(directory),
      bitmap('over', 'a'),
      ...[
        clear,
        action('block-dirty-bitmap-add', on('over', 'c')),
        action('block-dirty-bitmap-remove', on('over', 'a')),
        action('block-dirty-bitmap-merge', { node: 'over', target: 'a', bitmaps: ['a'] }),
        action('blockdev-snapshot', { node: 'over', overlay: 'copy' }),
        action('blockdev-snapshot-sync', { 'node-name': 'over', 'snapshot-file': 'x' }),
        action('blockdev-snapshot-internal-sync', { device: 'over', name: 'x' }),
        abort,
      ].map((each) => transaction([each], grouped)),
    ]));

  it('snapshots stand together or not at all', () =>
    compare(
      (directory) => [
        hello,
        ...openAll(directory),
        nul('n'),
        bitmap('over', 'a'),
        transaction([
          action('blockdev-snapshot', { node: 'over', overlay: 'copy' }),
          action('blockdev-snapshot', { node: 'over', overlay: 'copy' }),
        ]),
        transaction([action('blockdev-snapshot', { node: 'over', overlay: 'copy' }), abort]),
        transaction([action('blockdev-snapshot', { node: 'over', overlay: 'no' })]),
        transaction([action('blockdev-snapshot', { node: 'no', overlay: 'copy' })]),
        transaction([action('blockdev-snapshot-sync', { 'snapshot-file': 'x' })]),
        transaction([
          action('blockdev-snapshot-internal-sync', { device: 'no', name: 'x' }),
        ]),
        transaction([action('blockdev-snapshot-internal-sync', { device: 'n', name: 'x' })]),
        graph,
        transaction([
          action('blockdev-snapshot-sync', {
            'node-name': 'over',
            'snapshot-file': join(directory, 'new.qcow2'),
            'snapshot-node-name': 'new',
          }),
          action('blockdev-snapshot', { node: 'new', overlay: 'copy' }),
          action('block-dirty-bitmap-add', on('copy', 'c')),
          clear,
        ]),
        graph,
        nodes,
      ],
      (line) => withoutSizes(graphByNames(bitmapsOnly(line))),
    ));

  it('backups that are refused after others were created', () =>
    compare(() => [
      hello,
      ...FOUR_NODES,
      nul('small', 512),
      transaction([backup('j', 'n', 's'), backup('k', 'm', 'small')]),
      transaction([backup('j', 'n', 's'), backup('j', 'm', 't')]),
      transaction([backup('j', 'n', 's'), backup('k', 'm', 'no')]),
      transaction([backup('j', 'n', 's'), backup('k', 'm', 's')]),
      transaction([backup('j', 'n', 's'), abort]),
      transaction([backup('j', 'n', 's'), backup('k', 'm', 't'), abort]),
      transaction([backup('j', 'n', 's', { speed: -1 })]),
      transaction([backup('', 'n', 's')]),
      transaction([backup('j', 'no', 's')]),
      jobs,
      nodes,
    ], bitmapsOnly));

  const slow = { speed: 65_536 };
  const ended = (event: string, actions: readonly Line[], properties?: Line): Step =>
    untilEvent(event, 'transaction', {
      actions,
      ...(properties === undefined ? {} : { properties }),
    });

  it('backups that end one by one, and other transactions meanwhile', () =>
    compare(
      () => [
        hello,
        ...FOUR_NODES,
        bitmap('n', 'a'),
        transaction([backup('j', 'n', 's', slow), backup('k', 'm', 't', slow)]),
        transaction([]),
        transaction([abort]),
        transaction([action('block-dirty-bitmap-disable', on('n', 'a'))]),
        transaction([backup('l', 'n', 't')]),
        command('job-cancel', { id: 'j' }),
        command('job-cancel', { id: 'k' }),
        jobs,
      ],
      withoutOffset,
    ));

  it('backups that take a bitmap, and what is left of it', () => {
    const incremental = { sync: 'incremental', bitmap: 'a', 'auto-finalize': false };
    const intoFile = (directory: string): Line =>
      action('drive-backup', {
        'job-id': 'k',
        device: 'over',
        target: join(directory, 'new.qcow2'),
        format: 'qcow2',
        sync: 'full',
      });
    return compare(
      (directory) => [
        hello,
        ...openAll(directory),
        bitmap('over', 'a'),
        bitmap('copy', 'c'),
        transaction([backup('j', 'over', 'copy', incremental), abort]),
        nodes,
        transaction([backup('j', 'over', 'copy', incremental), clear]),
        transaction([
          action('block-dirty-bitmap-remove', on('over', 'a')),
          backup('j', 'over', 'copy', incremental),
        ]),
        transaction([backup('j', 'over', 'copy', { ...incremental, bitmap: 'no' })]),
        transaction([intoFile(directory), abort]),
        nodes,
        ended('null j', [backup('j', 'over', 'copy'), clear]),
        nodes,
        sha('copy', 'c'),
        command('job-finalize', { id: 'j' }),
        ended('null k', [
          intoFile(directory),
          action('block-dirty-bitmap-disable', on('over', 'a')),
        ]),
        nodes,
      ],
      (line) => (isDrainPause(line) ? null : bitmapsOnly(withoutOffset(line))),
    );
  });

  it('backups that end together', () =>
    compare(
      () => [
        hello,
        ...FOUR_NODES,
        transaction([backup('j', 'n', 's', slow), backup('k', 'm', 't', slow)], grouped),
        command('job-cancel', { id: 'j' }),
        transaction([backup('j', 'n', 's', slow), backup('k', 'm', 't', slow)], grouped),
        command('job-cancel', { id: 'k' }),
        jobs,
        ended('BLOCK_JOB_PENDING', [
          backup('j', 'n', 's', { 'auto-finalize': false }),
          backup('k', 'm', 't'),
        ], grouped),
        command('job-finalize', { id: 'k' }),
        ended('BLOCK_JOB_PENDING', [
          backup('j', 'n', 's'),
          backup('k', 'm', 't', { 'auto-finalize': false, 'auto-dismiss': false }),
        ], grouped),
        command('job-finalize', { id: 'j' }),
        command('job-dismiss', { id: 'k' }),
        jobs,
      ],
      (line) => (isWaiting(line) ? null : withoutReplies(withoutOffset(line))),
    ));

  it('commands that are transactions of one action let every job pause once', () =>
    compare((directory) => {
      const one = { 'job-id': 'k', device: 'm', target: 't', sync: 'full' };
      return [
        hello,
        ...openAll(directory),
        ...FOUR_NODES,
        command('blockdev-backup', {
          'job-id': 'j',
          device: 'n',
          target: 's',
          sync: 'none',
        }),
        command('blockdev-backup', { ...one, sync: 'none' }),
        command('job-cancel', { id: 'k' }),
        command('blockdev-backup', { ...one, bitmap: 'x' }),
        command('blockdev-backup', { ...one, device: 'no' }),
        command('blockdev-backup', { ...one, target: 'no' }),
        command('drive-backup', { ...one, target: join(directory, 'new') }),
        command('drive-backup', { ...one, target: join(directory, 'new'), device: 'no' }),
        command('blockdev-snapshot', { node: 'over', overlay: 'copy' }),
        command('blockdev-snapshot', { node: 'over', overlay: 'no' }),
        command('blockdev-snapshot', { node: 'no', overlay: 'no' }),
        command('blockdev-snapshot-sync', {
          'node-name': 'copy',
          'snapshot-file': join(directory, 'new.qcow2'),
          'snapshot-node-name': 'new',
        }),
        bitmap('m', 'x'),
        command('job-cancel', { id: 'j' }),
      ];
    }));

  for (const more of [{}, { 'auto-finalize': false }, { 'auto-dismiss': false }]) {
    it(`a backup with nothing to copy, ${JSON.stringify(more)}, ends before the answer`, () => {
      const bits = { sync: 'incremental', bitmap: 'a', ...more };
      const lone = (mode: string): string =>
        transaction([backup('j', 'n', 's', bits)], { 'completion-mode': mode });
      return compare(() => [
        hello,
        ...FOUR_NODES,
        bitmap('n', 'a'),
        ...['individual', 'grouped'].flatMap((mode) => [
          lone(mode),
          jobs,
          command('job-finalize', { id: 'j' }),
          command('job-dismiss', { id: 'j' }),
        ]),
        command('blockdev-backup', { 'job-id': 'j', device: 'n', target: 's', ...bits }),
        jobs,
      ]);
    });
  }

  for (const mode of ['grouped', 'individual']) {
    it(`several backups of one node, ${mode}, stop and go on in the same order`, () =>
      compare(() => [
        hello,
        ...['source', 'a', 'b', 'c'].map((name) =>
          command('blockdev-add', { driver: 'null-co', 'node-name': name, size: 4194304 })),
        command('transaction', {
          actions: ['a', 'b', 'c'].map((target) => ({
            type: 'blockdev-backup',
            data: { device: 'source', target, sync: 'none', 'job-id': `job-${target}` },
          })),
          properties: { 'completion-mode': mode },
        }),
        command('query-jobs'),
      ]));
  }
});

/** Which of two jobs has copied all first is chance. */
function isWaiting(line: Line): boolean {
  return (line['data'] as { status?: string } | undefined)?.status === 'waiting';
}
