// SPDX-License-Identifier: Apache-2.0
// Nodes with an external data file, compared with a real daemon line by line: made, added with and
// without the option, refused, reopened, resized, and used by jobs on either side.

import { join } from 'node:path';
import { describe, it } from 'vitest';

import {
  compare,
  graphByNames,
  hasReference,
  hello,
  openAll,
  withoutOffset,
  withoutSizes,
} from '../helpers/reference.js';
import { command, untilEvent } from '../helpers/transcript.js';
import type { Line, Step } from '../helpers/transcript.js';

const MIB = 1024 * 1024;

const add = (driver: string, name: string, more: Line): string =>
  command('blockdev-add', { driver, 'node-name': name, ...more });
const file = (directory: string, name: string): Line => ({
  driver: 'file',
  filename: join(directory, name),
});
const create = (id: string, options: Line): Step =>
  untilEvent(`concluded ${id}`, 'blockdev-create', { 'job-id': id, options });

/** An image `q` of 4 MiB in the nodes `f` and `d`, made and added. */
function made(directory: string, more: Line = {}, node: Line = { 'data-file': 'd' }): Step[] {
  return [
    hello,
    create('c1', { driver: 'file', filename: join(directory, 'new.qcow2'), size: 0 }),
    create('c2', { driver: 'file', filename: join(directory, 'new.img'), size: 0 }),
    add('file', 'f', { filename: join(directory, 'new.qcow2') }),
    add('file', 'd', { filename: join(directory, 'new.img') }),
    create('c3', { driver: 'qcow2', file: 'f', 'data-file': 'd', size: 4 * MIB, ...more }),
    command('query-jobs'),
    ...['c1', 'c2', 'c3'].map((id) => command('job-dismiss', { id })),
    add('qcow2', 'q', { file: 'f', ...node }),
  ];
}

const filter = (line: Line): Line => withoutSizes(graphByNames(line));

const looks: Step[] = [
  command('query-named-block-nodes', { flat: true }),
  command('x-debug-query-block-graph'),
];

describe.skipIf(!hasReference)('as a real daemon treats external data files', () => {
  it('nodes with a data file, and how they are refused', () =>
    compare((directory) => [
      ...made(directory),
      ...looks,
      command('blockdev-del', { 'node-name': 'd' }),
      add('null-co', 'n', { size: MIB }),
      command('blockdev-snapshot-internal-sync', { device: 'q', name: 's' }),
      command('block_resize', { 'node-name': 'q', size: 5 * MIB }),
      command('block_resize', { 'node-name': 'q', size: 2 * MIB }),
      command('blockdev-reopen', { options: [{ driver: 'qcow2', 'node-name': 'q', file: 'f' }] }),
      command('blockdev-reopen', {
        options: [{ driver: 'qcow2', 'node-name': 'q', file: 'f', 'data-file': 'n' }],
      }),
      command('blockdev-reopen', {
        options: [
          { driver: 'qcow2', 'node-name': 'q', file: 'f', 'data-file': 'd', 'read-only': true },
        ],
      }),
      ...looks,
      add('qcow2', 'q2', { file: 'n', 'data-file': 'd' }),
      command('blockdev-del', { 'node-name': 'q' }),
      add('qcow2', 'q3', { file: 'f', 'data-file': 'gone' }),
      add('qcow2', 'q4', { file: 'f', 'data-file': 'f' }),
      add('qcow2', 'q5', { file: 'd' }),
      add('qcow2', 'q6', { file: file(directory, 'copy.qcow2'), 'data-file': 'd' }),
      create('c4', { driver: 'qcow2', file: 'f', 'data-file-raw': true, size: MIB }),
      create('c5', { driver: 'qcow2', file: 'f', 'data-file': 'd', version: 'v2', size: MIB }),
      create('c6', {
        driver: 'qcow2', file: 'f', 'data-file': 'd', 'data-file-raw': true,
        'backing-file': 'x', 'backing-fmt': 'raw', size: MIB,
      }),
      create('c7', { driver: 'qcow2', file: 'f', 'data-file': 'gone', size: MIB }),
      command('query-jobs'),
    ], filter));

  it('jobs to and from a raw data file', () =>
    compare((directory) => [
      ...made(directory, { 'data-file-raw': true }),
      ...openAll(directory),
      untilEvent('BLOCK_JOB_READY', 'blockdev-mirror', {
        'job-id': 'm', device: 'over', target: 'q', sync: 'full',
      }),
      untilEvent('null m', 'block-job-complete', { device: 'm' }),
      ...looks,
      untilEvent('null b', 'blockdev-backup', {
        'job-id': 'b', device: 'q', target: 'copy', sync: 'full',
      }),
      untilEvent('null c', 'blockdev-backup', {
        'job-id': 'c', device: 'base', target: 'q', sync: 'full', compress: true,
      }),
      command('block-dirty-bitmap-add', { node: 'q', name: 'b0', persistent: true }),
      ...looks,
    ], (line) => withoutOffset(filter(line))));

  it('an overlay with a data file, streamed and committed', () =>
    compare((directory) => [
      ...made(directory, {}, { 'data-file': 'd', backing: null }),
      ...openAll(directory),
      command('blockdev-snapshot', { node: 'over', overlay: 'q' }),
      ...looks,
      untilEvent('null k', 'block-commit', { 'job-id': 'k', device: 'q', 'top-node': 'top' }),
      untilEvent('null s', 'block-stream', { 'job-id': 's', device: 'q' }),
      ...looks,
    ], filter));
});
