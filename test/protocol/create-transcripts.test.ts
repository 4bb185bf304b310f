// SPDX-License-Identifier: Apache-2.0
// Images that are made and named: blockdev-create, the drive-* commands and their backing names,
// compared with a real daemon line by line.
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'vitest';

import { compare, hasReference, hello, namesInOneOrder } from '../helpers/reference.js';
import { command, untilEvent } from '../helpers/transcript.js';
import type { Line, Step } from '../helpers/transcript.js';

const add = (options: Line): string => command('blockdev-add', options);
const jobs = command('query-jobs');
const dismiss = (id: string): string => command('job-dismiss', { id });

/** What the job has come to, whether its events come before the answer or after it. */
function create(options: Line): Step[] {
  const made = { 'job-id': 'c', options };
  return [untilEvent('concluded c', 'blockdev-create', made), jobs, dismiss('c')];
}

function withoutEvents(line: Line): Line | null {
  return 'event' in line ? null : namesInOneOrder(line);
}

const qcow2 = (path: string, more: Line = {}): Line => ({
  driver: 'qcow2',
  'node-name': 'top',
  file: { driver: 'file', 'node-name': 'file', filename: path },
  ...more,
});

describe.skipIf(!hasReference)('as a real daemon makes images', () => {
  it('options are refused, or fail the job, with the same words', () =>
    compare(
      (directory) => [
        hello,
        ...create({ driver: 'file', filename: join(directory, 'new.img'), size: 0, nocow: true }),
        ...create({ driver: 'file', filename: '/gone/x', size: 512, nocow: true }),
        command('blockdev-create', {
          'job-id': 'c',
          options: { driver: 'file', filename: '/gone/x', size: 512, nocow: 1 },
        }),
        add({ driver: 'file', 'node-name': 'f', filename: join(directory, 'new.img') }),
        ...create({ driver: 'qcow2', file: 'gone', size: 1 }),
        ...create({ driver: 'qcow2', file: 'gone', size: 1048576, 'cluster-size': 3 }),
        ...create({ driver: 'qcow2', file: 'f', size: 1 }),
        ...create({ driver: 'qcow2', file: 'f', size: 512, 'backing-fmt': 'qcow2' }),
        ...['nope', '', 'nvme-io_uring', 5].map((format) =>
          command('blockdev-create', {
            'job-id': 'c',
            options: {
              driver: 'qcow2', file: 'f', size: 512, 'backing-file': 'b', 'backing-fmt': format,
            },
          }),
        ),
        ...create({
          driver: 'qcow2', file: 'f', size: 512, 'backing-file': 'b', 'backing-fmt': 'rbd',
        }),
        ...create({ driver: 'qcow2', file: 'f', size: 512, 'backing-file': '' }),
      ],
      withoutEvents,
    ));

  it('a size out of range is told by its number', () =>
    compare((directory) => [
      hello,
      add(qcow2(join(directory, 'base.qcow2'))),
      ...[-1, -512, 1].map((size) => command('block_resize', { 'node-name': 'top', size })),
    ]));

  it('a backing name that does not hold beside the target is a file that is missing', () =>
    compare(
      (directory) => {
        mkdirSync(join(directory, 'other'), { recursive: true });
        const backup = (target: string, more: Line = {}): string =>
          command('drive-backup', {
            'job-id': 'b', device: 'top', target, sync: 'top', format: 'qcow2', ...more,
          });
        return [
          hello,
          add(qcow2(join(directory, 'base.qcow2'), { 'node-name': 'base', file: {
            driver: 'file', filename: join(directory, 'base.qcow2'),
          } })),
          add(qcow2('top.qcow2', { backing: 'base' })),
          backup('other/new.qcow2'),
          backup('gone/new.qcow2'),
          backup('other/new.qcow2', { mode: 'existing' }),
          command('query-named-block-nodes', { flat: true }),
        ];
      },
      withoutEvents,
    ));

  it.each(['drive-backup', 'drive-mirror'])('%s keeps a relative name that holds', (verb) =>
    compare(
      (directory) => {
        const target = join(directory, 'new.qcow2');
        const filtered = { target, sync: 'top', format: 'qcow2', 'job-id': 'b', device: 'top' };
        const ended = verb === 'drive-backup' ? 'null b' : 'ready b';
        return [
          hello,
          add(qcow2(join(directory, 'top.qcow2'))),
          untilEvent(ended, verb, filtered),
          ...(verb === 'drive-backup'
            ? []
            : [untilEvent('null b', 'block-job-cancel', { device: 'b' })]),
          add({
            driver: 'qcow2', 'node-name': 'made', 'read-only': true,
            file: { driver: 'file', filename: target },
          }),
          command('query-named-block-nodes', { flat: true }),
        ];
      },
      withoutEvents,
    ),
  );

  it('a name too long for the header fails a stream, whose chain stays', () =>
    compare(
      (directory) => [
        hello,
        add({
          driver: 'qcow2', 'node-name': 'base', 'read-only': true,
          file: { driver: 'file', filename: join(directory, 'base.qcow2') },
        }),
        add({
          driver: 'qcow2', 'node-name': 'mid', backing: 'base', 'read-only': true,
          file: { driver: 'file', filename: join(directory, 'top.qcow2') },
        }),
        add(qcow2(join(directory, 'over.qcow2'), { backing: 'mid' })),
        untilEvent('concluded s', 'block-stream', {
          'job-id': 's', device: 'top', 'base-node': 'base', 'auto-dismiss': false,
          'backing-file': 'b'.repeat(1024),
        }),
        jobs,
      ],
      withoutEvents,
    ));

  it('the graph holds a job until it is dismissed', () =>
    compare(
      (directory) => [
        hello,
        add(qcow2(join(directory, 'base.qcow2'))),
        add({ driver: 'null-co', 'node-name': 'n', size: 4194304 }),
        untilEvent('concluded b', 'blockdev-backup', {
          'job-id': 'b', device: 'top', target: 'n', sync: 'full', 'auto-dismiss': false,
        }),
        command('x-debug-query-block-graph'),
        dismiss('b'),
        command('x-debug-query-block-graph'),
      ],
      withoutEvents,
    ));
});

describe.skipIf(!hasReference)('as a real daemon reopens a file with its image', () => {
  it.each([{}, { 'read-only': true }, { 'read-only': false }, { 'auto-read-only': true }])(
    'one that is named stays read-only unless the image says otherwise: %j',
    (given) =>
      compare(
        (directory) => {
          const path = join(directory, 'base.qcow2');
          const reopen = (options: Line = {}): string =>
            command('blockdev-reopen', {
              options: [{ driver: 'qcow2', 'node-name': 'top', file: 'file', ...options }],
            });
          const nodes = command('query-named-block-nodes', { flat: true });
          const again = { driver: 'file', filename: path };
          const file = { ...again, 'node-name': 'file', ...given };
          return [
            hello,
            add({ driver: 'qcow2', 'node-name': 'top', file }),
            reopen({ 'read-only': true }),
            reopen(),
            nodes,
            reopen({ 'read-only': false }),
            nodes,
            reopen({ 'read-only': true }),
            reopen({ 'read-only': false, file: again }),
            nodes,
            reopen(),
            nodes,
          ];
        },
        withoutEvents,
      ),
  );
});
