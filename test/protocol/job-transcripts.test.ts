// SPDX-License-Identifier: Apache-2.0
// Jobs, their verbs and the order of their events, compared with a real daemon line by line.

import { join } from 'node:path';
import { describe, it } from 'vitest';

import {
  compare,
  graphByNames,
  hasReference,
  hello,
  isDrainPause,
  top,
  withoutOffset,
  withoutReplies,
} from '../helpers/reference.js';
import { command, untilEvent } from '../helpers/transcript.js';
import type { Line } from '../helpers/transcript.js';

/** A backup that is still running when the next command comes. */
function limitedBackup(): ReturnType<typeof untilEvent> {
  return untilEvent('running b', 'blockdev-backup', {
    'job-id': 'b',
    device: 'top',
    target: 't',
    sync: 'full',
    speed: 65536,
  });
}

/** What stands in a string that is broken may be a secret, and is not told here. */
function withoutStrays(line: Line): Line {
  const text = JSON.stringify(line).replace(/stray '\\"[^']*'/, `stray '\\"'`);
  return JSON.parse(text) as Line;
}

describe.skipIf(!hasReference)('as a real daemon runs jobs', () => {
  it('broken JSON gives the same errors and the stream goes on', () =>
    compare(() => [
      hello,
      '{"execute" "x"}',
      '{"execute":nope}',
      '{"execute":"query-jobs","id":01}',
      '{"execute":"query-jobs","id":-}',
      '{"execute":"query-jobs","id":1.}',
      '{"execute":"query-jobs","id":"a\\qb"}',
      '{"execute":"query-jobs","id":"\\ud800"}',
      '{"execute":"query-jobs","id":[1,]}',
      '{"execute":"query-jobs","id":[1 2]}',
      '{"execute":"query-jobs","id":{1:2}}',
      '{"execute":"query-jobs","id":{"a":]}',
      '{"execute":"query-jobs","id":"tab\tin"}',
      '{"execute":"query-jobs","execute":"query-jobs"}',
      '{"execute":@"query-jobs"} {"execute":"query-jobs"}',
      '}{"execute":"query-jobs"}',
      Buffer.from('{"exec\xff{"execute":"query-jobs"}', 'latin1'),
      Buffer.from('{"execute":\x00{"execute":"query-jobs"}', 'latin1'),
      Buffer.from('{"execute":"query-jobs","id":"\xc3("}', 'latin1'),
      `{"execute":"query-jobs","id":${'['.repeat(1024)}${']'.repeat(1024)}}`,
      command('query-jobs'),
    ], withoutStrays));

  it('stream refuses bad arguments with the same words and events', () =>
    compare(
      (directory) => [
        hello,
        command('blockdev-add', top(directory)),
        command('blockdev-add', { driver: 'null-co', 'node-name': 'other', size: 512 }),
        command('block-stream', { device: 'no' }),
        command('block-stream', { device: 'top' }),
        command('block-stream', { device: 'top', 'job-id': '1x' }),
        command('block-stream', { device: 'top', 'job-id': 'x', speed: -1 }),
        command('block-stream', { device: 'top', 'job-id': 'x', base: 'a', 'base-node': 'b' }),
        command('block-stream', { device: 'top', 'job-id': 'x', 'base-node': 'b' }),
        command('block-stream', { device: 'top', 'job-id': 'x', 'base-node': 'other' }),
        command('block-stream', { device: 'top', 'job-id': 'x', base: 'nowhere' }),
        command('block-stream', { device: 'top', 'job-id': 'x', 'backing-file': 'a' }),
        command('block-stream', { device: 'top', 'job-id': 'x', bottom: 'no' }),
        command('query-jobs'),
      ],
    ));

  it('a stream that finalizes by hand tells the same story', () =>
    compare(
      (directory) => [
        hello,
        command('blockdev-add', top(directory)),
        untilEvent('BLOCK_JOB_PENDING', 'block-stream', {
          device: 'top',
          'job-id': 's',
          'auto-finalize': false,
          'auto-dismiss': false,
        }),
        command('query-jobs'),
        command('query-block-jobs'),
        command('job-pause', { id: 's' }),
        command('job-complete', { id: 's' }),
        command('job-dismiss', { id: 's' }),
        command('blockdev-del', { 'node-name': 'top' }),
        command('job-finalize', { id: 's' }),
        command('query-jobs'),
        command('job-finalize', { id: 's' }),
        command('job-cancel', { id: 's' }),
        command('job-dismiss', { id: 's' }),
        command('blockdev-del', { 'node-name': 'top' }),
      ],
    ));

  it('a stream runs to its end on its own', () =>
    compare(
      (directory) => [
        hello,
        command('blockdev-add', top(directory)),
        untilEvent('null s', 'block-stream', { device: 'top', 'job-id': 's' }),
        command('query-jobs'),
      ],
    ));

  it('a limited stream is paused, resumed and cancelled', () =>
    compare(
      (directory) => [
        hello,
        command('blockdev-add', top(directory)),
        command('block-stream', { device: 'top', 'job-id': 's', speed: 65536 }),
        untilEvent('paused s', 'job-pause', { id: 's' }),
        command('job-pause', { id: 's' }),
        command('block-job-cancel', { device: 's' }),
        untilEvent('running s', 'job-resume', { id: 's' }),
        command('job-resume', { id: 's' }),
        command('block-job-set-speed', { device: 's', speed: -1 }),
        command('block-job-complete', { device: 's' }),
        command('block-stream', { device: 'top', 'job-id': 't' }),
        command('blockdev-del', { 'node-name': 'top' }),
        command('block-stream', { device: 'top', 'job-id': 's' }),
      ],
      withoutReplies,
    ));

  it('create jobs stay until they are dismissed', () =>
    compare(
      (directory) => [
        hello,
        command('blockdev-create', { 'job-id': 'c', options: { driver: 'raw' } }),
        command('blockdev-create', { 'job-id': 'c', options: { driver: 'null-co' } }),
        untilEvent('concluded c', 'blockdev-create', {
          'job-id': 'c',
          options: { driver: 'qcow2', file: 'nowhere', size: 1048576 },
        }),
        command('query-jobs'),
        command('query-block-jobs'),
        command('blockdev-create', { 'job-id': 'c', options: { driver: 'raw' } }),
        command('block-job-dismiss', { id: 'c' }),
        command('job-cancel', { id: 'c' }),
        command('job-dismiss', { id: 'c' }),
        untilEvent('concluded d', 'blockdev-create', {
          'job-id': 'd',
          options: { driver: 'file', filename: join(directory, 'new.img'), size: 0 },
        }),
        command('query-jobs'),
        command('job-dismiss', { id: 'd' }),
      ],
    ));

  it('backup refuses bad arguments with the same words', () =>
    compare(() => [
      hello,
      command('blockdev-add', { driver: 'null-co', 'node-name': 'n', size: 1048576 }),
      command('blockdev-add', { driver: 'null-co', 'node-name': 't', size: 1048576 }),
      command('blockdev-add', { driver: 'null-co', 'node-name': 'small', size: 524288 }),
      command('blockdev-backup', {}),
      command('blockdev-backup', { 'job-id': 'b', device: 'n', target: 'no', sync: 'full' }),
      command('blockdev-backup', { 'job-id': 'b', device: 'no', target: 't', sync: 'full' }),
      command('blockdev-backup', { 'job-id': 'b', device: 'n', target: 'n', sync: 'full' }),
      command('blockdev-backup', { 'job-id': 'b', device: 'n', target: 'small', sync: 'full' }),
      command('blockdev-backup', { 'job-id': 'b', device: 'n', target: 't', sync: 'incremental' }),
    ]));

  it('a backup runs to its end on its own', () =>
    compare(
      (directory) => [
        hello,
        command('blockdev-add', top(directory)),
        command('blockdev-add', { driver: 'null-co', 'node-name': 't', size: 4194304 }),
        untilEvent('null b', 'blockdev-backup', {
          'job-id': 'b',
          device: 'top',
          target: 't',
          sync: 'full',
        }),
        command('query-jobs'),
      ],
    ));

  it('streams to a base keep it, and name it in the header', () =>
    compare(
      (directory) => [
        hello,
        command('blockdev-add', {
          driver: 'qcow2',
          'node-name': 'base',
          file: { driver: 'file', filename: join(directory, 'base.qcow2') },
        }),
        command('blockdev-add', top(directory, { backing: 'base' })),
        command('blockdev-del', { 'node-name': 'base' }),
        untilEvent('null s', 'block-stream', { device: 'top', 'job-id': 's', 'base-node': 'base' }),
        command('blockdev-del', { 'node-name': 'base' }),
        untilEvent('null t', 'block-stream', { device: 'top', 'job-id': 't' }),
        command('blockdev-del', { 'node-name': 'base' }),
        command('blockdev-del', { 'node-name': 'top' }),
      ],
    ));

  it('an image is created, opened and filled by a backup', () =>
    compare(
      (directory) => [
        hello,
        command('blockdev-add', top(directory)),
        untilEvent('concluded c', 'blockdev-create', {
          'job-id': 'c',
          options: { driver: 'file', filename: join(directory, 'new.img'), size: 0 },
        }),
        command('job-dismiss', { id: 'c' }),
        command('blockdev-add', {
          driver: 'file',
          'node-name': 'store',
          filename: join(directory, 'new.img'),
        }),
        untilEvent('concluded q', 'blockdev-create', {
          'job-id': 'q',
          options: { driver: 'qcow2', file: 'store', size: 4194304 },
        }),
        command('query-jobs'),
        command('job-dismiss', { id: 'q' }),
        command('blockdev-add', { driver: 'qcow2', 'node-name': 'copy', file: 'store' }),
        untilEvent('null b', 'blockdev-backup', {
          'job-id': 'b',
          device: 'top',
          target: 'copy',
          sync: 'full',
        }),
        command('blockdev-del', { 'node-name': 'store' }),
        command('blockdev-del', { 'node-name': 'copy' }),
        command('blockdev-del', { 'node-name': 'store' }),
        command('query-block-jobs'),
      ],
    ));

  it('a backup that finalizes by hand is cancelled while pending', () =>
    compare(
      (directory) => [
        hello,
        command('blockdev-add', top(directory)),
        command('blockdev-add', { driver: 'null-co', 'node-name': 't', size: 4194304 }),
        untilEvent('BLOCK_JOB_PENDING', 'blockdev-backup', {
          'job-id': 'b',
          device: 'top',
          target: 't',
          sync: 'full',
          'auto-finalize': false,
          'auto-dismiss': false,
        }),
        command('blockdev-del', { 'node-name': 't' }),
        command('blockdev-backup', { 'job-id': 'x', device: 'top', target: 't', sync: 'full' }),
        command('job-cancel', { id: 'b' }),
        command('query-jobs'),
        command('query-block-jobs'),
        command('block-job-dismiss', { id: 'b' }),
      ],
    ));

  it('quitting with several jobs ends the newest first', () =>
    compare(
      () => [
        hello,
        ...['a', 'b', 'c', 'to-a', 'to-b', 'to-c'].map((name) =>
          command('blockdev-add', { driver: 'null-co', 'node-name': name, size: 4194304 })),
        ...['a', 'b', 'c'].map((device) =>
          command('blockdev-backup', {
            device, target: `to-${device}`, sync: 'none', 'job-id': `job-${device}`,
          })),
        untilEvent('null job-a', 'quit', {}),
      ],
      (line) => (isDrainPause(line) ? null : withoutReplies(line)),
    ));

  it('quitting with a running job cancels it and then answers', () =>
    compare(
      (directory) => [
        hello,
        command('blockdev-add', top(directory)),
        command('block-stream', { device: 'top', 'job-id': 's', speed: 65536 }),
        command('quit'),
      ],
      // Draining around the end shows as a pause in the reference; how far it came is chance.
      (line) => (isDrainPause(line) ? null : withoutOffset(line)),
    ));

  it('a limited backup is cancelled, and the graph is as it was before', () =>
    compare(
      (directory) => [
        hello,
        command('blockdev-add', top(directory)),
        command('blockdev-add', { driver: 'null-co', 'node-name': 't', size: 4194304 }),
        limitedBackup(),
        command('blockdev-del', { 'node-name': 'top' }),
        command('blockdev-del', { 'node-name': 't' }),
        command('blockdev-backup', { 'job-id': 'b', device: 'top', target: 't', sync: 'full' }),
        untilEvent('null b', 'job-cancel', { id: 'b' }),
        command('x-debug-query-block-graph'),
        command('query-block-jobs'),
        command('blockdev-del', { 'node-name': 't' }),
        command('blockdev-del', { 'node-name': 'top' }),
        command('x-debug-query-block-graph'),
      ],
      (line) => {
        const kept = isDrainPause(line) ? null : withoutReplies(line);
        return kept === null ? null : withoutOffset(graphByNames(kept));
      },
    ));

  it('a stream may name the lowest layer that it takes along', () =>
    compare(
      (directory) => [
        hello,
        command('blockdev-add', {
          driver: 'qcow2',
          'node-name': 'base',
          file: { driver: 'file', filename: join(directory, 'base.qcow2') },
        }),
        command('blockdev-add', top(directory, { backing: 'base' })),
        command('block-stream', { device: 'top', 'job-id': 's', bottom: 'top', base: 'x' }),
        untilEvent('null s', 'block-stream', {
          device: 'top',
          'job-id': 's',
          bottom: 'top',
          'backing-file': 'base.qcow2',
        }),
        untilEvent('null s', 'block-stream', { device: 'top', 'job-id': 's', bottom: 'base' }),
        command('blockdev-del', { 'node-name': 'base' }),
        command('x-debug-query-block-graph'),
      ],
      graphByNames,
    ));

  it('a stream beside a limited backup of the same node runs to its end', () =>
    compare(
      (directory) => [
        hello,
        command('blockdev-add', top(directory)),
        command('blockdev-add', { driver: 'null-co', 'node-name': 't', size: 4194304 }),
        limitedBackup(),
        untilEvent('null s', 'block-stream', { device: 'top', 'job-id': 's' }),
        untilEvent('null b', 'job-cancel', { id: 'b' }),
        command('blockdev-del', { 'node-name': 'top' }),
      ],
      (line) => {
        const kept = isDrainPause(line) ? null : withoutReplies(line);
        return kept === null ? null : withoutOffset(kept);
      },
    ));
});
