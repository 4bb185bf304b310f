// SPDX-License-Identifier: Apache-2.0
// blockdev-mirror and drive-mirror, compared with a real daemon line by line.

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

const graph = command('x-debug-query-block-graph');
const USUAL = { device: 'over', target: 'copy', sync: 'full', 'job-id': 'm' } as const;

function mirror(args: Line): string {
  return command('blockdev-mirror', { ...USUAL, ...args });
}

function until(event: string, args: Line = {}): Step {
  return untilEvent(event, 'blockdev-mirror', { ...USUAL, ...args });
}

function addQcow2(directory: string, name: string, extra: Line = {}): string {
  const file = { driver: 'file', filename: join(directory, `${name}.qcow2`) };
  return command('blockdev-add', { driver: 'qcow2', 'node-name': name, file, ...extra });
}

/** Jobs are held differently, and no file is named by chance. */
const plain = graphByNames;

/** Draining around the end shows as a moment of standby in the reference. */
function withoutStandby(line: Line): Line | null {
  const { status, id } = (line['data'] ?? {}) as { status?: string; id?: string };
  return id === 'm' && ['standby', 'ready'].includes(status ?? '') ? null : line;
}

describe.skipIf(!hasReference)('as a real daemon mirrors', () => {
  it('mirror refuses bad arguments with the same words and events', () =>
    compare((directory) => [
      hello,
      ...openAll(directory),
      command('blockdev-add', { driver: 'null-co', 'node-name': 'nul', size: 4194304 }),
      command('blockdev-add', {
        driver: 'null-co', 'node-name': 'rdonly', size: 4194304, 'read-only': true,
      }),
      command('blockdev-mirror', { device: 'over', target: 'copy' }),
      command('blockdev-mirror', { device: 'over', target: 'copy', sync: 'full' }),
      mirror({ device: 'no' }),
      mirror({ target: 'no' }),
      mirror({ device: 'no', target: 'no' }),
      mirror({ 'job-id': '1x' }),
      mirror({ sync: 'incremental' }),
      mirror({ sync: 'bitmap' }),
      mirror({ target: 'over' }),
      mirror({ target: 'top' }),
      mirror({ target: 'rdonly' }),
      mirror({ device: 'top' }),
      mirror({ granularity: 256 }),
      mirror({ granularity: 3000 }),
      mirror({ granularity: 134217728 }),
      mirror({ granularity: -1 }),
      mirror({ 'buf-size': -1 }),
      mirror({ speed: -1 }),
      mirror({ replaces: 'no' }),
      mirror({ replaces: 'base-file' }),
      mirror({ replaces: 'nul' }),
      mirror({ replaces: 'top' }),
      mirror({ 'filter-node-name': 'over' }),
      mirror({ 'filter-node-name': '1x' }),
      mirror({ 'on-source-error': 'bogus' }),
      mirror({ 'copy-mode': 'bogus' }),
      mirror({ unmap: true }),
      command('query-jobs'),
      graph,
    ], plain));

  it('a target of another size fails the job', () =>
    compare((directory) => [
      hello,
      ...openAll(directory),
      command('blockdev-add', { driver: 'null-co', 'node-name': 'small', size: 2097152 }),
      command('blockdev-add', { driver: 'null-co', 'node-name': 'big', size: 8388608 }),
      until('null m', { target: 'small' }),
      until('null m', { target: 'big' }),
      graph,
    ], plain));

  for (const sync of ['full', 'top', 'none']) {
    it(`a mirror of ${sync} gets ready and completes`, () =>
      compare((directory) => [
        hello,
        ...openAll(directory),
        until('BLOCK_JOB_READY', { sync, 'auto-dismiss': false }),
        graph,
        command('query-jobs'),
        command('query-block-jobs'),
        mirror({ 'job-id': 'other' }),
        mirror({ 'job-id': 'other', device: 'copy', target: 'over' }),
        command('block-stream', { device: 'over', 'job-id': 's' }),
        command('block-commit', { device: 'over', 'job-id': 's' }),
        command('blockdev-del', { 'node-name': 'over' }),
        command('job-finalize', { id: 'm' }),
        untilEvent('concluded m', 'job-complete', { id: 'm' }),
        command('query-jobs'),
        graph,
        command('job-dismiss', { id: 'm' }),
        command('blockdev-del', { 'node-name': 'over' }),
        command('blockdev-del', { 'node-name': 'copy' }),
      ], plain));
  }

  it('a filter below the device may be what is replaced', () =>
    compare((directory) => [
      hello,
      ...openAll(directory),
      command('object-add', { 'qom-type': 'throttle-group', id: 'g' }),
      command('blockdev-add', {
        driver: 'throttle', 'node-name': 'slow', 'throttle-group': 'g', file: 'over',
      }),
      until('BLOCK_JOB_READY', {
        device: 'slow', replaces: 'over', 'filter-node-name': 'filter',
      }),
      graph,
      untilEvent('null m', 'job-complete', { id: 'm' }),
      graph,
    ], plain));

  it('a child of a quorum, but not one that others use, nor one below a filter', () =>
    compare((directory) => {
      const votes = { 'vote-threshold': 1, children: ['q0', 'q2'] };
      const zeroes = { driver: 'null-co', size: 4_194_304, 'read-zeroes': true };
      const throttled = { driver: 'throttle', 'node-name': 'q2', 'throttle-group': 'g' };
      const replacing = (replaces: string): Line =>
        ({ device: 'q', replaces, 'filter-node-name': 'filter' });
      return [
        hello,
        ...openAll(directory),
        command('object-add', { 'qom-type': 'throttle-group', id: 'g' }),
        command('blockdev-add', { ...zeroes, 'node-name': 'q0' }),
        command('blockdev-add', { ...zeroes, 'node-name': 'n' }),
        command('blockdev-add', { ...throttled, file: 'n' }),
        command('blockdev-add', { driver: 'quorum', 'node-name': 'q', ...votes }),
        command('blockdev-add', { driver: 'raw', 'node-name': 'user', file: 'q0' }),
        mirror(replacing('q0')),
        mirror(replacing('n')),
        until('BLOCK_JOB_READY', replacing('q2')),
        untilEvent('null m', 'job-complete', { id: 'm' }),
        graph,
      ];
    }, plain));

  it('either side of a blkverify', () =>
    compare((directory) => {
      const zeroes = { driver: 'null-co', size: 4_194_304, 'read-zeroes': true };
      const verify = { driver: 'blkverify', 'node-name': 'v', raw: 'r', test: 't' };
      return [
        hello,
        addQcow2(directory, 'copy'),
        command('blockdev-add', { ...zeroes, 'node-name': 'r' }),
        command('blockdev-add', { ...zeroes, 'node-name': 't' }),
        command('blockdev-add', verify),
        until('BLOCK_JOB_READY', { device: 'v', replaces: 't', 'filter-node-name': 'filter' }),
        untilEvent('null m', 'job-complete', { id: 'm' }),
        graph,
      ];
    }, plain));

  it('a mirror that finalizes by hand is completed, and cancelled while pending', () =>
    compare((directory) => [
      hello,
      ...openAll(directory),
      until('BLOCK_JOB_READY', { 'auto-finalize': false, 'auto-dismiss': false }),
      untilEvent('BLOCK_JOB_PENDING', 'job-complete', { id: 'm' }),
      command('query-block-jobs'),
      command('job-complete', { id: 'm' }),
      command('job-pause', { id: 'm' }),
      graph,
      command('job-cancel', { id: 'm' }),
      command('query-jobs'),
      graph,
    ], plain));

  for (const [name, verb, args] of [
    ['without force ends well and changes no link', 'block-job-cancel', { device: 'm' }],
    ['with force aborts it', 'block-job-cancel', { device: 'm', force: true }],
    ['as a job aborts it', 'job-cancel', { id: 'm' }],
  ] as const) {
    it(`a cancel of a ready mirror ${name}`, () =>
      compare((directory) => [
        hello,
        ...openAll(directory),
        until('BLOCK_JOB_READY', { 'copy-mode': 'write-blocking' }),
        untilEvent('null m', verb, args),
        graph,
        command('query-jobs'),
      ], plain));
  }

  it('a cancel of a paused ready mirror aborts it', () =>
    compare((directory) => [
      hello,
      ...openAll(directory),
      until('BLOCK_JOB_READY'),
      untilEvent('standby m', 'job-pause', { id: 'm' }),
      command('query-block-jobs'),
      command('block-job-cancel', { device: 'm' }),
      untilEvent('null m', 'job-cancel', { id: 'm' }),
    ], plain));

  it('a cancel of a running mirror is a cancel', () =>
    compare((directory) => [
      hello,
      ...openAll(directory),
      mirror({ speed: 65536 }),
      command('job-complete', { id: 'm' }),
      untilEvent('null m', 'block-job-cancel', { device: 'm' }),
      mirror({ speed: 65536 }),
      untilEvent('paused m', 'job-pause', { id: 'm' }),
      command('block-job-cancel', { device: 'm' }),
      untilEvent('null m', 'block-job-cancel', { device: 'm', force: true }),
      graph,
    ], (line) => {
      const kept = withoutReplies(plain(line));
      return kept === null ? null : withoutOffset(kept);
    }));

  it('a ready mirror stands by while its source is drained', () =>
    compare((directory) => [
      hello,
      ...openAll(directory),
      command('blockdev-add', { driver: 'null-co', 'node-name': 'nul', size: 4194304 }),
      until('BLOCK_JOB_READY'),
      command('blockdev-backup', { device: 'over', target: 'nul', sync: 'full', 'job-id': 'b' }),
      untilEvent('null m', 'job-complete', { id: 'm' }),
    ], (line) => (isDrainPause(line) ? null : plain(line))));

  it('filters and bits of a mirror are seen in the list of nodes', () =>
    compare((directory) => [
      hello,
      ...openAll(directory),
      until('BLOCK_JOB_READY', { 'filter-node-name': 'filter', granularity: 131072 }),
      command('query-named-block-nodes', { flat: true }),
      untilEvent('null m', 'job-complete', { id: 'm' }),
      command('query-named-block-nodes', { flat: true }),
    ], withoutSizes));

  it('quitting with a ready mirror cancels it', () =>
    compare((directory) => [
      hello,
      ...openAll(directory),
      until('BLOCK_JOB_READY'),
      // Waited for: what is sent to a daemon that has gone takes its last words away.
      untilEvent('null m', 'quit', {}),
    ], (line) => withoutReplies(withoutStandby(line) ?? { return: {} })));

  it('a target that unmaps is zeroed, and only data is copied', () =>
    compare((directory) => [
      hello,
      ...openAll(directory).slice(0, 3),
      addQcow2(directory, 'copy', { discard: 'unmap' }),
      until('BLOCK_JOB_READY'),
      untilEvent('null m', 'job-cancel', { id: 'm' }),
      until('BLOCK_JOB_READY', { granularity: 4096, 'buf-size': 65536 }),
      untilEvent('null m', 'job-complete', { id: 'm' }),
    ], plain));

  it('drive-mirror refuses bad arguments with the same words', () =>
    compare((directory) => {
      const drive = (args: Line): string =>
        command('drive-mirror', {
          ...USUAL,
          target: join(directory, 'new.qcow2'),
          ...args,
        });
      return [
        hello,
        ...openAll(directory),
        drive({ device: 'no' }),
        drive({ device: 'top' }),
        drive({ mode: 'existing', target: join(directory, 'nowhere') }),
        drive({ mode: 'existing', target: join(directory, 'nowhere'), format: 'qcow2' }),
        drive({ format: 'foo' }),
        ...['snapshot-access', 'throttle', 'file', 'raw'].map((format) =>
          drive({ format, sync: 'none' }),
        ),
        drive({ sync: 'none', target: join(directory, 'over.qcow2') }),
        drive({ sync: 'top', target: join(directory, 'top.qcow2') }),
        drive({ 'buf-size': -1 }),
        drive({ 'node-name': 'top' }),
        drive({ 'node-name': 'x', replaces: 'no' }),
        drive({ replaces: 'over' }),
        drive({ sync: 'incremental' }),
        drive({ target: join(directory, 'no', 'new.qcow2') }),
        drive({ granularity: 3 }),
        drive({ 'job-id': '1x' }),
        drive({ speed: -1 }),
        command('query-jobs'),
        graph,
      ];
    }, plain));

  for (const sync of ['full', 'top', 'none']) {
    it(`drive-mirror of ${sync} makes its target and puts it in place`, () =>
      compare((directory) => [
        hello,
        ...openAll(directory),
        untilEvent('BLOCK_JOB_READY', 'drive-mirror', {
          device: 'over',
          target: join(directory, 'new.qcow2'),
          sync,
          'job-id': 'm',
          'node-name': 'new',
        }),
        graph,
        command('query-block-jobs'),
        untilEvent('null m', 'job-complete', { id: 'm' }),
        graph,
        addQcow2(directory, 'new', { backing: null }),
        command('blockdev-del', { 'node-name': 'over' }),
      ], plain));
  }
});
