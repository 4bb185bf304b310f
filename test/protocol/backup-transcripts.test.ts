// SPDX-License-Identifier: Apache-2.0
// blockdev-backup and drive-backup, compared with a real daemon line by line.

import { join } from 'node:path';
import { describe, it } from 'vitest';

import {
  compare,
  graphByNames,
  hasReference,
  hello,
  openAll,
  withoutOffset,
} from '../helpers/reference.js';
import { command, untilEvent } from '../helpers/transcript.js';
import type { Line, Step } from '../helpers/transcript.js';

const graph = command('x-debug-query-block-graph');
const USUAL = { device: 'over', target: 'copy', sync: 'full', 'job-id': 'b' } as const;
const dismiss = command('job-dismiss', { id: 'b' });
const cancel = untilEvent('concluded b', 'job-cancel', { id: 'b' });
const bitmaps = command('query-named-block-nodes', { flat: true });

function backup(args: Line): string {
  return command('blockdev-backup', { ...USUAL, ...args });
}

function until(event: string, args: Line): Step {
  return untilEvent(event, 'blockdev-backup', { ...USUAL, 'auto-dismiss': false, ...args });
}

function bitmap(verb: string, args: Line): string {
  return command(`block-dirty-bitmap-${verb}`, { node: 'over', ...args });
}

function addNull(name: string, extra: Line = {}): string {
  return command('blockdev-add', {
    driver: 'null-co', 'node-name': name, size: 4194304, ...extra,
  });
}

/** Only the bitmaps of nodes: the rest is compared elsewhere. */
function bitmapsOnly(line: Line): Line {
  const nodes = line['return'];
  if (!Array.isArray(nodes) || nodes.length === 0) return graphByNames(line);
  if ((nodes[0] as Line)['node-name'] === undefined) return graphByNames(line);
  const listed = (nodes as Line[]).map((node) => [node['node-name'], node['dirty-bitmaps'] ?? []]);
  return { return: listed.filter(([, list]) => (list as unknown[]).length > 0) };
}

/** What a running job has done so far is chance, and whether it is answered first. */
function plain(line: Line): Line | null {
  if (JSON.stringify(line) === '{"return":{}}') return null;
  const text = JSON.stringify(bitmapsOnly(line), (key, value: unknown) => {
    const bits = value as { readonly name?: unknown; readonly granularity?: unknown } | null;
    const isJobs = typeof bits?.granularity === 'number' && bits.name === undefined;
    if (isJobs) return { ...bits, count: 0 };
    return key === 'current-progress' ? 0 : value;
  });
  return withoutOffset(JSON.parse(text) as Line);
}

describe.skipIf(!hasReference)('as a real daemon backs up', () => {
  it('bitmaps and modes that do not go together are refused with the same words', () =>
    compare((directory) => [
      hello,
      ...openAll(directory),
      addNull('nul'),
      bitmap('add', { name: 'm' }),
      backup({ bitmap: 'm' }),
      backup({ bitmap: 'no' }),
      backup({ bitmap: 'no', 'bitmap-mode': 'never' }),
      backup({ bitmap: 'm', 'bitmap-mode': 'never' }),
      backup({ 'bitmap-mode': 'never' }),
      backup({ sync: 'none', bitmap: 'm' }),
      backup({ sync: 'none', bitmap: 'm', 'bitmap-mode': 'always' }),
      backup({ sync: 'top', bitmap: 'm' }),
      backup({ sync: 'top', bitmap: 'm', 'bitmap-mode': 'never' }),
      backup({ sync: 'incremental' }),
      backup({ sync: 'incremental', 'bitmap-mode': 'never' }),
      backup({ sync: 'incremental', bitmap: 'no' }),
      backup({ sync: 'incremental', bitmap: 'm', 'bitmap-mode': 'never' }),
      backup({ sync: 'incremental', bitmap: 'm', 'bitmap-mode': 'always' }),
      backup({ sync: 'bitmap' }),
      backup({ sync: 'bitmap', 'bitmap-mode': 'never' }),
      backup({ sync: 'bitmap', bitmap: 'm' }),
      backup({ sync: 'bitmap', bitmap: 'm', 'bitmap-mode': 'sometimes' }),
      backup({ target: 'nul', compress: true }),
      backup({ 'x-perf': { 'max-workers': 0 } }),
      backup({ 'x-perf': { 'max-workers': 2147483648 } }),
      backup({ 'x-perf': { 'max-chunk': -1 } }),
      backup({ 'x-perf': { 'max-chunk': 1024 } }),
      backup({ 'x-perf': { 'max-chunk': 1024 }, 'filter-node-name': 'over' }),
      backup({ 'filter-node-name': '1x' }),
      backup({ 'job-id': '1x', bitmap: 'm', 'bitmap-mode': 'always' }),
      backup({ speed: -1, bitmap: 'm', 'bitmap-mode': 'always' }),
      backup({ target: 'over-file', bitmap: 'm', 'bitmap-mode': 'always' }),
      bitmaps,
      bitmap('clear', { name: 'm' }),
      command('query-jobs'),
    ], plain));

  for (const mode of ['on-success', 'always']) {
    it(`${mode}: a full backup begins a chain, an incremental one goes on with it`, () =>
      compare((directory) => [
        hello,
        ...openAll(directory),
        bitmap('add', { name: 'm' }),
        bitmap('add', { name: 'off', disabled: true }),
        until('concluded b', { bitmap: 'm', 'bitmap-mode': mode }),
        command('query-jobs'),
        command('query-block-jobs'),
        dismiss,
        bitmaps,
        until('concluded b', { sync: 'incremental', bitmap: 'm' }),
        command('query-jobs'),
        dismiss,
        until('concluded b', { sync: 'bitmap', bitmap: 'off', 'bitmap-mode': mode }),
        dismiss,
        bitmaps,
      ]));
  }

  it('a bitmap in use is busy, and nobody else gets it', () =>
    compare((directory) => [
      hello,
      ...openAll(directory),
      addNull('nul'),
      bitmap('add', { name: 'm' }),
      bitmap('add', { name: 'off', disabled: true }),
      until('running b', { bitmap: 'm', 'bitmap-mode': 'on-success', speed: 65536 }),
      bitmaps,
      ...['remove', 'clear', 'enable', 'disable'].map((verb) => bitmap(verb, { name: 'm' })),
      bitmap('merge', { target: 'off', bitmaps: ['m'] }),
      bitmap('merge', { target: 'm', bitmaps: ['off'] }),
      bitmap('add', { name: 'm' }),
      cancel,
      bitmaps,
      dismiss,
      until('BLOCK_JOB_PENDING', {
        bitmap: 'm', 'bitmap-mode': 'always', 'auto-finalize': false,
      }),
      bitmaps,
      command('query-jobs'),
      command('query-block-jobs'),
      untilEvent('concluded b', 'job-finalize', { id: 'b' }),
      bitmaps,
      dismiss,
    ], plain));

  it('top, none and a node with half a unit at its end count the same', () =>
    compare((directory) => [
      hello,
      ...openAll(directory),
      bitmap('add', { name: 'm' }),
      until('concluded b', { sync: 'top', bitmap: 'm', 'bitmap-mode': 'on-success' }),
      command('query-jobs'),
      dismiss,
      until('running b', { sync: 'none' }),
      command('query-jobs'),
      command('query-block-jobs'),
      command('job-complete', { id: 'b' }),
      command('block-job-complete', { device: 'b' }),
      graph,
      cancel,
      dismiss,
      ...['odd', 'other'].map((name) => addNull(name, { size: 4194816, 'read-zeroes': true })),
      until('concluded b', { device: 'odd', target: 'other' }),
      command('query-jobs'),
      dismiss,
    ], plain));

  it('drive-backup refuses bad arguments with the same words', () =>
    compare((directory) => {
      const drive = (args: Line): string =>
        command('drive-backup', {
          'job-id': 'b',
          device: 'over',
          target: join(directory, 'new.qcow2'),
          sync: 'full',
          ...args,
        });
      return [
        hello,
        ...openAll(directory),
        addNull('nul'),
        bitmap('add', { name: 'm' }),
        command('drive-backup', {}),
        drive({ format: 'no' }),
        drive({ mode: 'no' }),
        drive({ device: 'no' }),
        drive({ device: 'nul' }),
        drive({ target: join(directory, 'no', 'new.qcow2') }),
        drive({ target: join(directory, 'none'), mode: 'existing' }),
        drive({ target: join(directory, 'over.qcow2') }),
        drive({ bitmap: 'm' }),
        drive({ bitmap: 'no', sync: 'incremental' }),
        ...['snapshot-access', 'throttle', 'file', 'raw'].map((format) =>
          drive({ sync: 'none', format }),
        ),
        drive({ sync: 'none', target: join(directory, 'over.qcow2') }),
        drive({ compress: true, format: 'raw' }),
        drive({ 'job-id': '1x' }),
        drive({ 'job-id': undefined }),
        command('query-jobs'),
        graph,
      ];
    }, plain));

  for (const sync of ['full', 'none']) {
    it(`drive-backup of ${sync} makes its target, and closes it at the end`, () =>
      compare((directory) => {
        const start = command('drive-backup', {
          'job-id': 'b',
          device: 'over',
          target: join(directory, 'new.qcow2'),
          sync,
          speed: 65536,
          'auto-dismiss': false,
        });
        return [hello, ...openAll(directory), start, graph, cancel, graph, dismiss];
      }, plain));
  }

  it('drive-backup of the top opens what its target lies on', () =>
    compare((directory) => [
      hello,
      command('blockdev-add', {
        driver: 'qcow2',
        'node-name': 'over',
        file: { driver: 'file', filename: join(directory, 'over.qcow2') },
      }),
      untilEvent('concluded b', 'drive-backup', {
        'job-id': 'b',
        device: 'over',
        target: join(directory, 'new.qcow2'),
        sync: 'top',
        'auto-dismiss': false,
      }),
      command('query-jobs'),
      command('blockdev-add', {
        driver: 'qcow2',
        'node-name': 'new',
        file: { driver: 'file', filename: join(directory, 'new.qcow2') },
      }),
      graph,
    ], plain));

  it('without a format a drive-backup of a file makes a file', () =>
    compare((directory) => {
      const drive = { 'job-id': 'b', sync: 'full', 'auto-dismiss': false };
      const target = (name: string): string => join(directory, name);
      const bare = { driver: 'file', 'node-name': 'bare', filename: target('over.qcow2') };
      return [
        hello,
        command('blockdev-add', bare),
        untilEvent('concluded b', 'drive-backup', {
          ...drive, device: 'bare', target: target('new.img'),
        }),
        dismiss,
        untilEvent('concluded b', 'drive-backup', {
          ...drive, device: 'bare', target: target('new.img'), mode: 'existing', format: 'file',
        }),
        dismiss,
        command('drive-backup', {
          ...drive, device: 'bare', target: target('none.img'), sync: 'none', format: 'file',
        }),
        command('blockdev-add', {
          driver: 'file', 'node-name': 'new', filename: target('new.img'),
        }),
        graph,
      ];
    }, plain));

  it('names of targets and formats that there are not', () =>
    compare((directory) => {
      const drive = { 'job-id': 'b', device: 'over', sync: 'full' };
      const target = join(directory, 'new.img');
      return [
        hello,
        ...openAll(directory),
        command('drive-backup', { ...drive, target: ':x' }),
        command('drive-mirror', { ...drive, target: ':x', mode: 'existing' }),
        command('drive-mirror', { ...drive, target, format: 'mirror_top' }),
        command('drive-backup', { ...drive, target, format: 'commit_top' }),
      ];
    }, plain));

  it('a node stands in the list before all its children but the file', () =>
    compare((directory) => {
      const file = (name: string, node: string): Line => ({
        driver: 'file', 'node-name': node, filename: join(directory, name),
      });
      const image = file('base.qcow2', 'image');
      const raw = file('copy.qcow2', 'raw');
      const test = file('over.qcow2', 'test');
      return [
        hello,
        command('blockdev-add', { driver: 'blkdebug', 'node-name': 'debug', image }),
        command('blockdev-add', { driver: 'blkverify', 'node-name': 'verify', raw, test }),
        command('query-named-block-nodes', { flat: true }),
      ];
    }, namesOnly));
});

function namesOnly(line: Line): Line {
  const nodes = line['return'];
  if (!Array.isArray(nodes)) return line;
  return { return: nodes.map((node: Line) => node['node-name']) };
}
