// SPDX-License-Identifier: Apache-2.0
// The same conversation with our server and with a real qemu-storage-daemon, compared line by line.

import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import { startOwnDaemon } from '../helpers/own-daemon.js';
import { peer } from '../helpers/peers.js';
import { startRealDaemon } from '../helpers/real-daemon.js';
import { command, playAll, untilEvent } from '../helpers/transcript.js';
import type { Step } from '../helpers/transcript.js';

const daemon = peer('qemu-storage-daemon');
const img = peer('qemu-img');
const io = peer('qemu-io');
const hello = command('qmp_capabilities');

let directory = '';
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'transcripts-'));
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

/** Fresh images in the directory: base.qcow2 (4 MiB, the first MiB written) below top.qcow2. */
function makeChain(): void {
  const path = (name: string): string => join(directory, name);
  execFileSync(img as string, ['create', '-q', '-f', 'qcow2', path('base.qcow2'), '4M']);
  execFileSync(io as string, ['-c', 'write 0 1M', path('base.qcow2')]);
  const backing = ['-b', 'base.qcow2', '-F', 'qcow2'];
  execFileSync(img as string, ['create', '-q', '-f', 'qcow2', ...backing, path('top.qcow2')]);
  rmSync(path('new.img'), { force: true });
}

async function compare(steps: readonly Step[], prepare: () => void = () => undefined): Promise<void> {
  prepare();
  const theirs = await (async () => {
    await using real = await startRealDaemon(daemon as string, directory);
    return await playAll(real.socket, steps);
  })();
  prepare();
  await using own = await startOwnDaemon(directory);
  const ours = await playAll(await own.connect(), steps);
  expect(ours).toEqual(theirs);
}

const top = (extra: object = {}): object => ({
  driver: 'qcow2',
  'node-name': 'top',
  file: { driver: 'file', filename: join(directory, 'top.qcow2') },
  ...extra,
});

describe.skipIf(daemon === null || img === null || io === null)('as a real daemon answers', () => {
  it('negotiation is per connection and comes first', () =>
    compare([
      command('query-version'),
      command('no-such-command'),
      '{"execute": "qmp_capabilities", "arguments": {"enable": ["none"]}}',
      '{"execute": "qmp_capabilities", "arguments": {"enable": 1}}',
      '{"execute": "qmp_capabilities", "arguments": {"enable": [1]}}',
      '{"execute": "qmp_capabilities", "arguments": {"x": 1}}',
      '{"exec-oob": "query-version"}',
      '{"execute": "qmp_capabilities", "id": {"a": [1, null]}}',
      hello,
    ]));

  it('oob is understood once it is enabled', () =>
    compare([
      '{"execute": "qmp_capabilities", "arguments": {"enable": ["oob"]}}',
      '{"exec-oob": "query-jobs", "id": 1}',
      '{"exec-oob": "no-such", "id": 2}',
      '{"execute": "query-jobs", "exec-oob": "query-jobs"}',
      '{"exec-oob": 1}',
    ]));

  it('the shape of a request is checked member by member', () =>
    compare([
      hello,
      '[]',
      '"text" ',
      '12 ',
      '{}',
      '{"id": 7}',
      '{"exec": 1}',
      '{"execute": 1, "id": "x"}',
      '{"execute": "query-jobs", "arguments": []}',
      '{"execute": "query-jobs", "arguments": null}',
      '{"execute": "query-jobs", "control": {}}',
      '{"execute": "query-jobs", "arguments": {"x": 1}}',
      '{"execute": "query-jobs", "arguments": {}, "id": 18446744073709551615}',
      "{'execute': 'query-jobs', 'id': 'a\"b'}",
      '{"execute": "query-jobs"}{"execute": "query-block-jobs"}',
      '{"execute":\n"query-\\u006aobs"}',
    ]));

  it('broken JSON gives the same errors and the stream goes on', () =>
    compare([
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
    ]));

  it('arguments are checked by schema before anything happens', () =>
    compare([
      hello,
      command('blockdev-add'),
      command('blockdev-add', { driver: 'zip' }),
      command('blockdev-add', { driver: 1 }),
      command('blockdev-add', { driver: 'qcow2', 'node-name': 'n' }),
      command('blockdev-add', { driver: 'qcow2', 'node-name': 'n', file: {} }),
      command('blockdev-add', { driver: 'qcow2', 'node-name': 'n', file: { driver: 'file' } }),
      command('blockdev-add', { driver: 'qcow2', 'node-name': 'n', file: null }),
      command('blockdev-add', { driver: 'qcow2', 'node-name': 'n', file: 1 }),
      command('blockdev-add', { driver: 'qcow2', 'node-name': 'n', file: 'x', backing: [] }),
      command('blockdev-add', { driver: 'raw', 'node-name': 'n', file: 'x', discard: 'no' }),
      command('blockdev-add', { driver: 'raw', 'node-name': 'n', file: 'x', cache: { direct: 1 } }),
      command('blockdev-add', { driver: 'raw', 'node-name': 'n', 'file.driver': 'file' }),
      '{"execute":"blockdev-add","arguments":{"driver":"null-co","node-name":"n","size":1.0}}',
      command('blockdev-add', { driver: 'null-co', 'node-name': 'n', size: '1k' }),
      command('block-dirty-bitmap-add', { node: 'n', name: 'b', granularity: -1 }),
      command('block-stream', { device: 'n', 'job-id': 'x', 'on-error': 'never' }),
      command('block-stream', { device: 'n', 'job-id': 'x', speed: 9223372036854775808n }),
      command('blockdev-create', { 'job-id': 'a', options: {} }),
      command('query-jobs'),
    ]));

  it('unknown jobs are told apart by the family of the verb', () =>
    compare([
      hello,
      ...['pause', 'resume', 'cancel', 'complete', 'dismiss', 'finalize'].flatMap((verb) => [
        command(`job-${verb}`, { id: 'no' }),
        command(
          `block-job-${verb}`,
          verb === 'dismiss' || verb === 'finalize' ? { id: 'no' } : { device: 'no' },
        ),
      ]),
      command('block-job-set-speed', { device: 'no', speed: 1 }),
    ]));

  it('nodes are added and deleted under the same rules', () =>
    compare(
      [
        hello,
        command('blockdev-add', { driver: 'null-co', size: 512 }),
        command('blockdev-add', { driver: 'null-co', 'node-name': '1n', size: 512 }),
        command('blockdev-add', { driver: 'null-co', 'node-name': 'x'.repeat(32), size: 512 }),
        command('blockdev-add', { driver: 'null-co', 'node-name': 'n', size: 512 }),
        command('blockdev-add', { driver: 'null-co', 'node-name': 'n', size: 512 }),
        command('blockdev-add', { driver: 'raw', 'node-name': 'r', file: 'nowhere' }),
        command('blockdev-add', { driver: 'raw', 'node-name': 'r', file: 'n' }),
        command('blockdev-del', { 'node-name': 'n' }),
        command('blockdev-del', { 'node-name': 'no' }),
        command('blockdev-del', { 'node-name': 'r' }),
        command('blockdev-del', { 'node-name': 'n' }),
        command('blockdev-add', top({ file: { driver: 'file', filename: '/no/such/file' } }) as never),
        command('blockdev-add', top() as never),
        command('blockdev-del', { 'node-name': 'top' }),
      ],
      makeChain,
    ));

  it('bitmaps are refused and kept under the same rules', () =>
    compare([
      hello,
      command('blockdev-add', { driver: 'null-co', 'node-name': 'n', size: 1048576 }),
      command('block-dirty-bitmap-add', { node: 'no', name: 'b' }),
      command('block-dirty-bitmap-add', { node: 'n', name: 'b', granularity: 3 }),
      command('block-dirty-bitmap-add', { node: 'n', name: 'b', granularity: 256 }),
      command('block-dirty-bitmap-add', { node: 'n', name: '' }),
      command('block-dirty-bitmap-add', { node: 'n', name: 'x'.repeat(1024) }),
      command('block-dirty-bitmap-add', { node: 'n', name: 'b' }),
      command('block-dirty-bitmap-add', { node: 'n', name: 'b' }),
      command('block-dirty-bitmap-disable', { node: 'n', name: 'b' }),
      command('block-dirty-bitmap-enable', { node: 'n', name: 'b' }),
      command('block-dirty-bitmap-clear', { node: 'n', name: 'b' }),
      command('block-dirty-bitmap-clear', { node: 'n', name: 'c' }),
      command('block-dirty-bitmap-remove', { node: 'n', name: 'b' }),
      command('block-dirty-bitmap-remove', { node: 'n', name: 'b' }),
      command('block-dirty-bitmap-remove', { node: 'no', name: 'b' }),
    ]));

  it('stream refuses bad arguments with the same words and events', () =>
    compare(
      [
        hello,
        command('blockdev-add', top() as never),
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
      makeChain,
    ));

  it('a stream that finalizes by hand tells the same story', () =>
    compare(
      [
        hello,
        command('blockdev-add', top() as never),
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
      makeChain,
    ));

  it('a stream runs to its end on its own', () =>
    compare(
      [
        hello,
        command('blockdev-add', top() as never),
        untilEvent('null s', 'block-stream', { device: 'top', 'job-id': 's' }),
        command('query-jobs'),
      ],
      makeChain,
    ));

  it('a limited stream is paused, resumed and cancelled', () =>
    compare(
      [
        hello,
        command('blockdev-add', top() as never),
        command('block-stream', { device: 'top', 'job-id': 's', speed: 65536 }),
        command('job-pause', { id: 's' }),
        command('job-pause', { id: 's' }),
        command('block-job-cancel', { device: 's' }),
        command('job-resume', { id: 's' }),
        command('job-resume', { id: 's' }),
        command('block-job-set-speed', { device: 's', speed: -1 }),
        command('block-job-complete', { device: 's' }),
        command('block-stream', { device: 'top', 'job-id': 't' }),
        command('blockdev-del', { 'node-name': 'top' }),
        command('block-stream', { device: 'top', 'job-id': 's' }),
      ],
      makeChain,
    ));

  it('create jobs stay until they are dismissed', () =>
    compare(
      [
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
      makeChain,
    ));

  it('backup refuses bad arguments with the same words', () =>
    compare([
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
      [
        hello,
        command('blockdev-add', top() as never),
        command('blockdev-add', { driver: 'null-co', 'node-name': 't', size: 4194304 }),
        untilEvent('null b', 'blockdev-backup', {
          'job-id': 'b',
          device: 'top',
          target: 't',
          sync: 'full',
        }),
        command('query-jobs'),
      ],
      makeChain,
    ));
});
