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
import type { Line, Step } from '../helpers/transcript.js';

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

type Filter = (line: Line) => Line | null;
type Record = Awaited<ReturnType<typeof playAll>>;

function filtered(record: Record, filter: Filter): unknown {
  return record.map(({ step, said }) => ({
    step,
    said: said.map(filter).filter((line) => line !== null),
  }));
}

/** How much a file takes differs between two files of the same content. */
function withoutSizes(line: Line): Line {
  return JSON.parse(
    JSON.stringify(line, (key, value: unknown) => {
      const isFile = (value as { format?: unknown } | null)?.format === 'file';
      if (isFile) return { ...(value as object), 'virtual-size': 0, 'actual-size': 0 };
      return key === 'actual-size' ? 0 : value;
    }),
  ) as Line;
}

/** The order of nodes is nobody's promise. */
function inOneOrder(line: Line): Line {
  const list = withoutSizes(line)['return'];
  if (!Array.isArray(list)) return line;
  const key = (node: Line): string => `${String(node['file'])} ${String(node['drv'])}`;
  const sorted = (list as Line[]).toSorted((left, right) => (key(left) < key(right) ? -1 : 1));
  return { ...line, return: sorted };
}

/** Edges by names instead of ids, in one order. */
function graphByNames(line: Line): Line {
  const graph = line['return'] as { nodes?: Line[]; edges?: Line[] } | undefined;
  if (graph?.nodes === undefined || graph.edges === undefined) return line;
  const names = new Map(graph.nodes.map(({ id, name, type }) => [id, [type, name].join(' ')]));
  const lists = ['perm', 'shared-perm'] as const;
  const edges = graph.edges.map((edge) => {
    const masks = lists.map((list) => (edge[list] as string[]).toSorted().join('+'));
    const ends = [names.get(edge['parent']), edge['name'], names.get(edge['child'])];
    return [...ends, ...masks].join(', ');
  });
  return { return: { edges: edges.toSorted() } };
}

/** Whether a verb's effect comes before or after its reply depends on what the job is doing. */
function withoutReplies(line: Line): Line | null {
  return 'return' in line ? null : line;
}

function withoutOffset(line: Line): Line {
  return JSON.parse(
    JSON.stringify(line, (key, value: unknown) => (key === 'offset' ? 0 : value)),
  ) as Line;
}

function isDrainPause(line: Line): boolean {
  const data = line['data'] as { readonly status?: string } | undefined;
  return data?.status === 'paused' || data?.status === 'running';
}

async function compare(
  steps: readonly Step[],
  prepare: () => void = () => undefined,
  filter: Filter = (line) => line,
): Promise<void> {
  prepare();
  const theirs = await (async () => {
    await using real = await startRealDaemon(daemon as string, directory);
    return await playAll(real.socket, steps);
  })();
  prepare();
  await using own = await startOwnDaemon(directory);
  void own.engine.quitRequested.then(() => own.server.close());
  const ours = await playAll(await own.connect(), steps);
  expect(filtered(ours, filter)).toEqual(filtered(theirs, filter));
}

const top = (extra: Line = {}): Line => ({
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
        command('blockdev-add', top({ file: { driver: 'file', filename: '/nowhere' } })),
        command('blockdev-add', top()),
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
        command('blockdev-add', top()),
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
        command('blockdev-add', top()),
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
        command('blockdev-add', top()),
        untilEvent('null s', 'block-stream', { device: 'top', 'job-id': 's' }),
        command('query-jobs'),
      ],
      makeChain,
    ));

  it('a limited stream is paused, resumed and cancelled', () =>
    compare(
      [
        hello,
        command('blockdev-add', top()),
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
      makeChain,
      withoutReplies,
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
        command('blockdev-add', top()),
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

  it('nodes of a chain are described alike', async () => {
    const describeNodes: readonly Step[] = [
      hello,
      command('blockdev-add', top()),
      command('block-dirty-bitmap-add', { node: 'top', name: 'b', granularity: 65536 }),
      command('query-named-block-nodes', { flat: true }),
      command('query-named-block-nodes'),
    ];
    await compare(describeNodes, makeChain, inOneOrder);
  });

  it('streams to a base keep it, and name it in the header', () =>
    compare(
      [
        hello,
        command('blockdev-add', {
          driver: 'qcow2',
          'node-name': 'base',
          file: { driver: 'file', filename: join(directory, 'base.qcow2') },
        }),
        command('blockdev-add', top({ backing: 'base' })),
        command('blockdev-del', { 'node-name': 'base' }),
        untilEvent('null s', 'block-stream', { device: 'top', 'job-id': 's', 'base-node': 'base' }),
        command('blockdev-del', { 'node-name': 'base' }),
        untilEvent('null t', 'block-stream', { device: 'top', 'job-id': 't' }),
        command('blockdev-del', { 'node-name': 'base' }),
        command('blockdev-del', { 'node-name': 'top' }),
      ],
      makeChain,
    ));

  it('an image is created, opened and filled by a backup', () =>
    compare(
      [
        hello,
        command('blockdev-add', top()),
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
      makeChain,
    ));

  it('permissions that conflict are refused with nothing changed', () =>
    compare(
      [
        hello,
        command('blockdev-add', {
          driver: 'file',
          'node-name': 'f',
          filename: join(directory, 'top.qcow2'),
        }),
        command('blockdev-add', { driver: 'qcow2', 'node-name': 'one', file: 'f' }),
        command('blockdev-add', { driver: 'qcow2', 'node-name': 'two', file: 'f' }),
        command('blockdev-add', top()),
        command('blockdev-del', { 'node-name': 'f' }),
        command('blockdev-del', { 'node-name': 'one' }),
        command('blockdev-del', { 'node-name': 'f' }),
      ],
      makeChain,
    ));

  it('a backup that finalizes by hand is cancelled while pending', () =>
    compare(
      [
        hello,
        command('blockdev-add', top()),
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
      makeChain,
    ));

  it('quitting with a running job cancels it and then answers', () =>
    compare(
      [
        hello,
        command('blockdev-add', top()),
        command('block-stream', { device: 'top', 'job-id': 's', speed: 65536 }),
        command('quit'),
      ],
      makeChain,
      // Draining around the end shows as a pause in the reference; how far it came is chance.
      (line) => (isDrainPause(line) ? null : withoutOffset(line)),
    ));

  it('the permissions of every edge are the same', () =>
    compare(
      [
        hello,
        command('blockdev-add', {
          driver: 'file',
          'node-name': 'f',
          filename: join(directory, 'top.qcow2'),
        }),
        command('x-debug-query-block-graph'),
        command('blockdev-add', { driver: 'qcow2', 'node-name': 'top', file: 'f' }),
        command('blockdev-add', { driver: 'raw', 'node-name': 'r', file: 'top' }),
        command('blockdev-add', {
          driver: 'qcow2',
          'node-name': 'base',
          'read-only': true,
          file: { driver: 'file', 'node-name': 'b', filename: join(directory, 'base.qcow2') },
        }),
        command('x-debug-query-block-graph'),
      ],
      makeChain,
      graphByNames,
    ));
});
