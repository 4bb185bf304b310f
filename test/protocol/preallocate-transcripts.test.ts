// SPDX-License-Identifier: Apache-2.0
// Preallocating nodes, compared with a real daemon: options and reopens line by line, and how long
// the file is while it is written to and when that is over.

import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import type { Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';

import { openNativeHost } from '../../src/host/index.js';
import { startOwnDaemon } from '../helpers/own-daemon.js';
import { peer } from '../helpers/peers.js';
import { startRealDaemon } from '../helpers/real-daemon.js';
import { compare, graphByNames, hasReference, hello, withoutSizes } from '../helpers/reference.js';
import { command, Conversation, untilEvent } from '../helpers/transcript.js';
import type { Line, Step } from '../helpers/transcript.js';

const KIB = 1024;

const add = (options: Line): string => command('blockdev-add', options);
const preallocate = (options: Line): string =>
  add({ driver: 'preallocate', 'node-name': 'p', file: 'f', ...options });
const del = (name: string): string => command('blockdev-del', { 'node-name': name });
const reopen = (options: Line): string =>
  command('blockdev-reopen', {
    options: [{ driver: 'preallocate', 'node-name': 'p', file: 'f', ...options }],
  });
const graph = command('x-debug-query-block-graph');

/** Members of `json:` names come in the order of a hash table there. */
function namesInOneOrder(line: Line): Line {
  const text = JSON.stringify(withoutSizes(graphByNames(line)), (key, value: unknown) => {
    if (key === 'actual-size') return undefined;
    const isJsonName = typeof value === 'string' && value.startsWith('json:');
    return isJsonName ? { json: JSON.parse(value.slice('json:'.length)) as unknown } : value;
  });
  return JSON.parse(text) as Line;
}

describe.skipIf(!hasReference)('as a real daemon', () => {
  it('opens a preallocating node, reopens it and shows its edges', () =>
    compare(
      (directory) => {
        const filename = join(directory, 'base.qcow2');
        return [
          hello,
          add({ driver: 'file', 'node-name': 'f', filename }),
          add({ driver: 'blkdebug', 'node-name': 'b', image: 'f', align: 4096 }),
          preallocate({ file: 'none' }),
          add({ driver: 'preallocate', 'node-name': 'p' }),
          ...[1, 1000, -512].map((align) => preallocate({ 'prealloc-align': align })),
          preallocate({ 'prealloc-size': -1 }),
          preallocate({ 'prealloc-size': '1' }),
          preallocate({ file: 'b', 'prealloc-align': 512 }),
          preallocate({ file: 'b', 'prealloc-align': 1536 }),
          preallocate({ 'prealloc-align': 0 }),
          del('p'),
          preallocate({ 'prealloc-align': 1536, 'prealloc-size': 1000 }),
          command('query-named-block-nodes', { flat: true }),
          graph,
          reopen({ 'prealloc-align': 100, 'prealloc-size': 1000 }),
          reopen({ 'prealloc-align': 512 }),
          reopen({ 'prealloc-align': 2048, 'prealloc-size': 5 }),
          reopen({ 'prealloc-align': 2048, 'prealloc-size': 5, 'read-only': true }),
          reopen({ 'prealloc-align': 2048, 'prealloc-size': 5 }),
          del('b'),
          add({ driver: 'raw', 'node-name': 'r', file: 'p' }),
          graph,
          command('block_resize', { 'node-name': 'r', size: 65_536 }),
          command('query-named-block-nodes', { flat: true }),
          del('p'),
          del('r'),
          del('p'),
          preallocate({ 'read-only': true }),
          graph,
        ];
      },
      namesInOneOrder,
    ));

  it('takes the permissions for a format above', () =>
    compare(
      (directory) => {
        const filename = join(directory, 'base.qcow2');
        return [
          hello,
          add({ driver: 'file', 'node-name': 'f', filename }),
          preallocate({}),
          add({ driver: 'qcow2', 'node-name': 'q', file: 'p' }),
          graph,
          reopen({ 'prealloc-size': 4096 }),
          reopen({ 'read-only': true }),
          command('block_resize', { 'node-name': 'f', size: 65_536 }),
          add({ driver: 'raw', 'node-name': 'other', file: 'f' }),
          graph,
          del('q'),
          graph,
          command('query-named-block-nodes', { flat: true }),
        ];
      },
      namesInOneOrder,
    ));
});

interface Stage {
  readonly directory: string;
  readonly path: string;
  play(step: Step): Promise<readonly Line[]>;
}

/** Bytes of the file. */
const sizeOf = ({ path }: Stage): number => statSync(path).size;

async function onStage(real: boolean, work: (stage: Stage) => Promise<void>): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), 'preallocate-'));
  const talk = async (socket: Socket): Promise<void> => {
    const conversation = new Conversation(socket);
    await conversation.greeting();
    const path = join(directory, 'disk.qcow2');
    execFileSync(peer('qemu-img') as string, ['create', '-q', '-f', 'qcow2', path, '1M']);
    await work({ directory, path, play: (step) => conversation.play(step) });
  };
  try {
    if (real) {
      await using daemon = await startRealDaemon(peer('qemu-storage-daemon') as string, directory);
      await talk(daemon.socket);
    } else {
      await using daemon = await startOwnDaemon(directory);
      await talk(await daemon.connect());
    }
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

/** Without the addon ours makes no room ahead in real files. */
const servers: readonly (readonly [string, boolean])[] = [
  ['a real daemon', true],
  ...(openNativeHost() === null ? [] : [['an engine of ours', false] as const]),
];

describe.skipIf(!hasReference).each(servers)('in %s', (_, real) => {
  const ok: readonly Line[] = [{ return: {} }];

  async function writeMegabyte(stage: Stage, target: string): Promise<void> {
    const filename = join(stage.directory, 'source');
    writeFileSync(filename, Buffer.alloc(1024 * KIB, 7));
    await stage.play(add({ driver: 'file', 'node-name': 's', filename }));
    const job = { 'job-id': 'j', device: 's', target, sync: 'full' };
    const lines = await stage.play(untilEvent('null j', 'blockdev-backup', job));
    expect(JSON.stringify(lines)).not.toContain('"error"');
    await stage.play(del('s'));
  }

  function imageEnd({ path }: Stage): number {
    const text = execFileSync(peer('qemu-img') as string, ['check', '--output=json', path]);
    const report = JSON.parse(text.toString()) as Record<string, number>;
    expect(report['leaks'] ?? 0).toBe(0);
    return report['image-end-offset'] ?? 0;
  }

  it('a file is longer while a format writes to it, and as long as its data afterwards', () =>
    onStage(real, async (stage) => {
      const before = sizeOf(stage);
      await stage.play(hello);
      await stage.play(add({ driver: 'file', 'node-name': 'f', filename: stage.path }));
      const options = { 'prealloc-align': 64 * KIB, 'prealloc-size': 16_384 * KIB };
      expect(await stage.play(preallocate(options))).toEqual(ok);
      expect(await stage.play(add({ driver: 'qcow2', 'node-name': 'q', file: 'p' }))).toEqual(ok);
      expect(sizeOf(stage)).toBe(before);
      await writeMegabyte(stage, 'q');
      const during = sizeOf(stage);
      expect(during % (64 * KIB)).toBe(0);
      expect(during).toBeGreaterThan(16_384 * KIB);
      expect(during).toBeLessThan(19_000 * KIB);
      expect(await stage.play(del('q'))).toEqual(ok);
      const after = sizeOf(stage);
      expect(after).toBeLessThan(2048 * KIB);
      await stage.play(del('p'));
      await stage.play(del('f'));
      expect(sizeOf(stage)).toBe(after);
      expect(imageEnd(stage)).toBe(after);
      const raw = join(stage.directory, 'raw');
      execFileSync(peer('qemu-img') as string, ['convert', '-O', 'raw', stage.path, raw]);
      expect(readFileSync(raw).subarray(0, 1024 * KIB).every((byte) => byte === 7)).toBe(true);
    }));

  it('the node shows the end of the data as its size, not that of the file', () =>
    onStage(real, async (stage) => {
      await stage.play(hello);
      await stage.play(add({ driver: 'file', 'node-name': 'f', filename: stage.path }));
      await stage.play(preallocate({}));
      await stage.play(add({ driver: 'qcow2', 'node-name': 'q', file: 'p' }));
      await writeMegabyte(stage, 'q');
      expect(sizeOf(stage)).toBeGreaterThan(128 * 1024 * KIB);
      const [answer] = await stage.play(command('query-named-block-nodes', { flat: true }));
      const nodes = answer?.['return'] as readonly Record<string, unknown>[];
      const image = nodes.find((node) => node['node-name'] === 'p')?.['image'];
      expect((image as Record<string, number>)['virtual-size']).toBeLessThan(2048 * KIB);
    }));

  it('a format that closes with its inline children leaves a file as long as its data', () =>
    onStage(real, async (stage) => {
      await stage.play(hello);
      const file = { driver: 'file', filename: stage.path };
      const below = { driver: 'preallocate', file };
      await stage.play(add({ driver: 'qcow2', 'node-name': 'q', file: below }));
      await writeMegabyte(stage, 'q');
      expect(sizeOf(stage)).toBeGreaterThan(128 * 1024 * KIB);
      await stage.play(del('q'));
      expect(imageEnd(stage)).toBe(sizeOf(stage));
    }));

  it('reopening it read-only cuts the file off', () =>
    onStage(real, async (stage) => {
      await stage.play(hello);
      const file = { driver: 'file', filename: stage.path };
      const inline = { driver: 'preallocate', 'node-name': 'p', file };
      const options = { driver: 'qcow2', 'node-name': 'q', file: inline };
      await stage.play(add(options));
      await writeMegabyte(stage, 'q');
      const readOnly = { driver: 'qcow2', 'node-name': 'q', file: 'p', 'read-only': true };
      const change = { options: [readOnly] };
      expect(sizeOf(stage)).toBeGreaterThan(128 * 1024 * KIB);
      expect(await stage.play(command('blockdev-reopen', change))).toEqual(ok);
      expect(imageEnd(stage)).toBe(sizeOf(stage));
      const writable = { options: [{ ...readOnly, 'read-only': false }] };
      expect(await stage.play(command('blockdev-reopen', writable))).toEqual(ok);
      await writeMegabyte(stage, 'q');
      await stage.play(del('q'));
      expect(imageEnd(stage)).toBe(sizeOf(stage));
    }));
});
