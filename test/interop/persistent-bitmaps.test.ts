// SPDX-License-Identifier: Apache-2.0
// Persistent bitmaps that our daemon and the real one hand to each other: each goes on with the
// bits that the other has stored, by their hashes. What was killed is not trusted by either, and
// an incremental backup after a restart restores the disk byte for byte.
//
// The guest is a job: `sync=top` of an image that holds the written clusters alone.
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import { QmpClient } from '../../src/client/index.js';
import { peer } from '../helpers/peers.js';
import { startProgramDaemon } from '../helpers/program-daemon.js';
import { startRealDaemon } from '../helpers/real-daemon.js';

const qemuImg = peer('qemu-img');
const qemuIo = peer('qemu-io');
const realDaemon = peer('qemu-storage-daemon');
const isMissing = qemuImg === null || qemuIo === null || realDaemon === null;
const BITMAPS = ['coarse', 'fine', 'off'] as const;

interface Daemon {
  readonly client: QmpClient;
  end(signal: 'SIGKILL' | 'SIGTERM'): Promise<void>;
}

async function startOurs(directory: string): Promise<Daemon> {
  const daemon = await startProgramDaemon(directory);
  return { client: daemon.client, end: async (signal) => void (await daemon.end(signal)) };
}

async function startReal(directory: string): Promise<Daemon> {
  const daemon = await startRealDaemon(realDaemon ?? '', directory);
  const client = await QmpClient.over(daemon.socket);
  return {
    client,
    async end(signal) {
      process.kill(daemon.pid, signal);
      await daemon.exited;
      await client.close();
    },
  };
}

class Site {
  readonly directory = mkdtempSync(join(tmpdir(), 'bitmaps-'));
  #writes = 0;

  path(name: string): string {
    return join(this.directory, name);
  }

  img(...args: readonly string[]): string {
    return execFileSync(qemuImg ?? '', args, { cwd: this.directory }).toString();
  }

  io(name: string, command: string): void {
    execFileSync(qemuIo ?? '', ['-c', command, name], { cwd: this.directory });
  }

  async add({ client }: Daemon, name: string, more: object = {}): Promise<void> {
    const file = { driver: 'file', filename: this.path(`${name}.qcow2`) };
    const options = { driver: 'qcow2', 'node-name': name, file, ...more };
    await client.executeAny('blockdev-add', options as Readonly<Record<string, unknown>>);
  }

  async backup({ client }: Daemon, args: object): Promise<void> {
    const job = await client.start('blockdev-backup', args as never);
    await job.completed();
  }

  /** Writes some sectors into the node disk, at another place each time. */
  async write(daemon: Daemon): Promise<void> {
    this.#writes += 1;
    const name = `patch${this.#writes}`;
    this.img('create', '-q', '-f', 'qcow2', `${name}.qcow2`, '8M');
    const [offset, length] = [this.#writes * 700 + 5, 90 + 40 * this.#writes];
    this.io(`${name}.qcow2`, `write -P ${this.#writes} ${offset}k ${length}k`);
    await this.add(daemon, name);
    await this.backup(daemon, { 'job-id': name, device: name, target: 'disk', sync: 'top' });
    await daemon.client.execute('blockdev-del', { 'node-name': name });
  }

  /** Of each bitmap: whether it records, its count, and the hash of its bits. */
  async bits({ client }: Daemon): Promise<unknown[]> {
    const nodes = await client.execute('query-named-block-nodes', { flat: true });
    const disk = nodes.find((node) => node['node-name'] === 'disk');
    const rows: unknown[] = [];
    for (const name of BITMAPS) {
      const found = disk?.['dirty-bitmaps']?.find((bitmap) => bitmap.name === name);
      const hash = await client.execute('x-debug-block-dirty-bitmap-sha256', {
        node: 'disk',
        name,
      });
      const { recording, persistent, count } = found ?? {};
      rows.push([name, recording, persistent, count, hash.sha256]);
    }
    return rows;
  }

  bitmapFlags(): Record<string, readonly string[]> {
    const info = JSON.parse(this.img('info', '--output=json', 'disk.qcow2')) as {
      'format-specific': { data: { bitmaps?: { name: string; flags: string[] }[] } };
    };
    const { bitmaps = [] } = info['format-specific'].data;
    return Object.fromEntries(bitmaps.map(({ name, flags }) => [name, flags]));
  }
}

describe.skipIf(isMissing)('persistent bitmaps', () => {
  let site: Site;
  beforeEach(() => {
    site = new Site();
    site.img('create', '-q', '-f', 'qcow2', 'disk.qcow2', '8M');
    site.img('bitmap', '--add', 'disk.qcow2', 'coarse');
    site.img('bitmap', '--add', '-g', '512', 'disk.qcow2', 'fine');
    site.img('bitmap', '--add', '--merge', 'fine', '--disable', 'disk.qcow2', 'off');
    site.io('disk.qcow2', 'write 100k 30k');
  });
  afterEach(() => rmSync(site.directory, { recursive: true, force: true }));

  it('go from one program to the other and back with all their bits', async () => {
    let before: unknown[] | null = null;
    for (const start of [startReal, startOurs, startOurs, startReal]) {
      const daemon = await start(site.directory);
      await site.add(daemon, 'disk');
      const found = await site.bits(daemon);
      if (before !== null) expect(found).toEqual(before);
      await site.write(daemon);
      await daemon.client.execute('block-dirty-bitmap-merge', {
        node: 'disk',
        target: 'off',
        bitmaps: ['fine'],
      });
      before = await site.bits(daemon);
      expect(before).not.toEqual(found);
      await daemon.end('SIGTERM');
      expect(site.img('check', 'disk.qcow2')).toContain('No errors were found');
      expect(site.bitmapFlags()).toEqual({ coarse: ['auto'], fine: ['auto'], off: [] });
    }
  });

  it('are not trusted by anybody after SIGKILL, and can be removed', async () => {
    const killed = await startOurs(site.directory);
    await site.add(killed, 'disk');
    await site.write(killed);
    await killed.end('SIGKILL');
    const marked = ['in-use', 'auto'];
    expect(site.bitmapFlags()).toEqual({ coarse: marked, fine: marked, off: ['in-use'] });
    for (const [start, name] of [
      [startOurs, 'coarse'],
      [startReal, 'fine'],
      [startOurs, 'off'],
    ] as const) {
      const daemon = await start(site.directory);
      await site.add(daemon, 'disk');
      const [disk] = await daemon.client.execute('query-named-block-nodes', { flat: true });
      const bitmaps = disk?.['dirty-bitmaps'] ?? [];
      expect(bitmaps.every(({ inconsistent }) => inconsistent === true)).toBe(true);
      const clearing = daemon.client.execute('block-dirty-bitmap-clear', { node: 'disk', name });
      await expect(clearing).rejects.toThrow(`Bitmap '${name}' is inconsistent`);
      await daemon.client.execute('block-dirty-bitmap-remove', { node: 'disk', name });
      await daemon.end('SIGTERM');
    }
    expect(site.bitmapFlags()).toEqual({});
    site.img('check', '-q', '-r', 'leaks', 'disk.qcow2');
    expect(site.img('check', 'disk.qcow2')).toContain('No errors were found');
  });

  it('tell an incremental backup after a restart what to copy', async () => {
    const first = await startOurs(site.directory);
    site.img('create', '-q', '-f', 'qcow2', 'full.qcow2', '8M');
    await site.add(first, 'disk');
    await site.add(first, 'full');
    await first.client.execute('block-dirty-bitmap-clear', { node: 'disk', name: 'coarse' });
    const full = { 'job-id': 'full', device: 'disk', target: 'full', sync: 'full' };
    await site.backup(first, full);
    await site.write(first);
    await first.end('SIGTERM');

    const second = await startOurs(site.directory);
    await site.add(second, 'disk');
    await site.write(second);
    site.img('create', '-q', '-f', 'qcow2', '-b', 'full.qcow2', '-F', 'qcow2', 'next.qcow2');
    await site.add(second, 'next', { backing: null });
    const next = { 'job-id': 'next', device: 'disk', target: 'next', sync: 'incremental' };
    await site.backup(second, { ...next, bitmap: 'coarse' });
    const [coarse] = (await site.bits(second)) as unknown[][];
    expect(coarse?.slice(0, 4)).toEqual(['coarse', true, true, 0]);
    await second.end('SIGTERM');
    site.img('compare', 'disk.qcow2', 'next.qcow2');
    expect(site.img('check', 'disk.qcow2')).toContain('No errors were found');
  });
});
