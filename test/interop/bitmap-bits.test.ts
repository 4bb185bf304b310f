// SPDX-License-Identifier: Apache-2.0
// The same writes of a guest to a real daemon and to ours: every bitmap of every node has the same
// bits, by its count and by its hash, whatever its granularity and whatever lies above.

import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';

import { SeededRandom } from '../../src/base/index.js';
import { QmpClient } from '../../src/client/index.js';
import { READ_WRITE } from '../helpers/graph.js';
import { startOwnDaemon } from '../helpers/own-daemon.js';
import { peer } from '../helpers/peers.js';
import { startRealDaemon } from '../helpers/real-daemon.js';
import { hasReference } from '../helpers/reference.js';

interface Write {
  readonly kind: 'write' | 'zero' | 'discard';
  readonly offset: number;
  readonly length: number;
}

interface Disk {
  readonly size: number;
  readonly discard: 'unmap' | 'ignore';
  readonly format: 'qcow2' | 'raw';
  readonly writes: readonly Write[];
}

const NODES = ['guest', 'disk', 'file'] as const;
const GRANULARITIES = [512, 4096, 65_536, 1_048_576] as const;

function randomDisk(seed: number): Disk {
  const random = new SeededRandom(seed);
  const below = (limit: number): number => random.below(limit);
  const format = below(2) === 0 ? 'raw' : 'qcow2';
  const size = (1 + below(8000)) * 512;
  const writes = Array.from({ length: 12 }, (): Write => {
    const kind = (['write', 'write', 'zero', 'discard'] as const)[below(4)] ?? 'write';
    const offset = below(size);
    const most = Math.min(size - offset, below(4) === 0 ? size : 10_000);
    return { kind, offset, length: 1 + below(most) };
  });
  return { size, format, discard: below(3) === 0 ? 'ignore' : 'unmap', writes };
}

/** The nodes: the guest's throttle filter over the disk over its file; a bitmap of each size. */
async function build(client: QmpClient, folder: string, disk: Disk): Promise<void> {
  const run = (name: string, args: object): Promise<unknown> =>
    client.executeAny(name, args as Readonly<Record<string, unknown>>);
  await run('object-add', { 'qom-type': 'throttle-group', id: 'g' });
  const { discard, format } = disk;
  const filename = join(folder, 'disk.img');
  await run('blockdev-add', { driver: 'file', 'node-name': 'file', filename, discard });
  await run('blockdev-add', { driver: format, 'node-name': 'disk', file: 'file', discard });
  await run('blockdev-add', {
    driver: 'throttle',
    'node-name': 'guest',
    'throttle-group': 'g',
    file: 'disk',
    discard,
  });
  for (const node of NODES) {
    for (const granularity of GRANULARITIES) {
      await run('block-dirty-bitmap-add', { node, name: `g${granularity}`, granularity });
    }
  }
}

function makeImage(folder: string, { format, size }: Disk): void {
  const path = join(folder, 'disk.img');
  rmSync(path, { force: true });
  const args = ['create', '-q', '-f', format, path, String(size)];
  execFileSync(peer('qemu-img') as string, args);
}

/** Name, count and hash of all bitmaps; those of the file are where each one puts its clusters. */
async function bits(client: QmpClient, disk: Disk): Promise<unknown[]> {
  const nodes = NODES.filter((node) => node !== 'file' || disk.format === 'raw');
  const rows: unknown[] = [];
  const all = await client.execute('query-named-block-nodes', { flat: true });
  for (const node of nodes) {
    const found = all.find(({ 'node-name': name }) => name === node);
    for (const { name, count } of found?.['dirty-bitmaps'] ?? []) {
      const { sha256 } = await client.execute('x-debug-block-dirty-bitmap-sha256', {
        node,
        name: name ?? '',
      });
      rows.push([node, name, count, sha256]);
    }
  }
  return rows;
}

async function theirs(folder: string, disk: Disk): Promise<unknown[]> {
  makeImage(folder, disk);
  await using real = await startRealDaemon(peer('qemu-storage-daemon') as string, folder);
  await using client = await QmpClient.over(real.socket);
  await build(client, folder, disk);
  const path = join(folder, 'nbd.sock');
  const run = (name: string, args: object): Promise<unknown> =>
    client.executeAny(name, args as Readonly<Record<string, unknown>>);
  await run('nbd-server-start', { addr: { type: 'unix', data: { path } } });
  await run('block-export-add', { type: 'nbd', id: 'e', 'node-name': 'guest', writable: true });
  const commands = disk.writes.flatMap(({ kind, offset, length }) => {
    const verb = { write: 'write', zero: 'write -z', discard: 'discard' }[kind];
    return ['-c', `${verb} ${offset} ${length}`];
  });
  const url = `nbd+unix:///guest?socket=${path}`;
  execFileSync(peer('qemu-io') as string, ['-d', 'unmap', '-f', 'raw', ...commands, url]);
  return await bits(client, disk);
}

async function ours(folder: string, disk: Disk): Promise<unknown[]> {
  makeImage(folder, disk);
  await using own = await startOwnDaemon(folder);
  await using client = await QmpClient.over(await own.connect());
  await build(client, folder, disk);
  const { graph } = own.engine;
  const guest = await graph.attach(graph.require('guest'), 'guest', READ_WRITE);
  for (const { kind, offset, length } of disk.writes) {
    if (kind === 'write') await guest.write(offset, new Uint8Array(length).fill(0xcd));
    else if (kind === 'zero') await guest.writeZeroes(offset, length);
    else await guest.discard(offset, length);
  }
  const rows = await bits(client, disk);
  await guest.detach();
  return rows;
}

describe.skipIf(!hasReference)('bits of dirty bitmaps', () => {
  it.each([1, 2, 3, 4, 5, 6, 7, 8])('are those of a real daemon: writes %i', async (seed) => {
    const folder = mkdtempSync(join(tmpdir(), 'bits-'));
    try {
      const disk = randomDisk(seed);
      expect(await ours(folder, disk)).toEqual(await theirs(folder, disk));
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  });
});
