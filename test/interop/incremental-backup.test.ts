// SPDX-License-Identifier: Apache-2.0
// Incremental backup from its first full copy to the restore, by the typed client, with our daemon
// and with the real one: a chain of increments, a cancelled one, one that meets a full disk, one
// that is killed. The real
// qemu-img restores each state, which is compared byte for byte.
//
// The guest is a job as well: `sync=top` of an image that holds the written clusters alone.
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
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
const SIZE = 8 * 2 ** 20;
const CLUSTER = 65_536;
const isCampaign = process.env['BLOCKWRIGHT_CAMPAIGN'] !== undefined;

interface Daemon {
  readonly client: QmpClient;
  kill(): Promise<void>;
}

async function startOurs(directory: string): Promise<Daemon> {
  const daemon = await startProgramDaemon(directory);
  return { client: daemon.client, kill: async () => void (await daemon.end('SIGKILL')) };
}

async function startReal(directory: string): Promise<Daemon> {
  const daemon = await startRealDaemon(realDaemon ?? '', directory);
  const client = await QmpClient.over(daemon.socket);
  return {
    client,
    async kill() {
      await daemon[Symbol.asyncDispose]();
      await client.close();
    },
  };
}

const DAEMONS = [['our daemon', startOurs], ['the real daemon', startReal]] as const;

class Site {
  readonly directory = mkdtempSync(join(tmpdir(), 'increments-'));
  /** What the disk holds. */
  readonly disk = new Uint8Array(SIZE);
  client!: QmpClient;
  #writes = 0;

  path(name: string): string {
    return join(this.directory, name);
  }

  create(name: string, backing?: string): void {
    const chain = backing === undefined ? [] : ['-b', `${backing}.qcow2`, '-F', 'qcow2'];
    const file = this.path(`${name}.qcow2`);
    execFileSync(qemuImg ?? '', ['create', '-q', '-f', 'qcow2', ...chain, file, `${SIZE}`]);
  }

  async add(name: string, extra: Readonly<Record<string, unknown>> = {}): Promise<void> {
    const file = { driver: 'file', filename: this.path(`${name}.qcow2`) };
    const options = { driver: 'qcow2', 'node-name': name, file, backing: null, ...extra };
    await this.client.execute('blockdev-add', options as never);
  }

  /** The guest writes `count` clusters from cluster `first` on. */
  async write(first: number, count: number): Promise<void> {
    this.#writes += 1;
    const name = `write${this.#writes}`;
    const [offset, length] = [first * CLUSTER, count * CLUSTER];
    this.disk.fill(this.#writes, offset, offset + length);
    this.create(name);
    const write = `write -P ${this.#writes} ${offset} ${length}`;
    execFileSync(qemuIo ?? '', ['-f', 'qcow2', '-c', write, this.path(`${name}.qcow2`)]);
    await this.add(name);
    const job = await this.client.start('blockdev-backup', {
      'job-id': name, device: name, target: 'disk', sync: 'top',
    });
    await job.completed();
    await this.client.execute('blockdev-del', { 'node-name': name });
  }

  /** Begins a chain: from the moment of the copy on, the bitmap knows what has changed. */
  async backUpAll(name: string): Promise<void> {
    this.create(name);
    await this.add(name);
    await this.client.execute('block-dirty-bitmap-add', { node: 'disk', name: 'changes' });
    const job = await this.client.start('blockdev-backup', {
      'job-id': name,
      device: 'disk',
      target: name,
      sync: 'full',
      bitmap: 'changes',
      'bitmap-mode': 'on-success',
    });
    await job.completed();
    await this.client.execute('blockdev-del', { 'node-name': name });
  }

  /** Goes on with it: what has changed since the last backup that completed. */
  async backUpChanges(name: string, backing: string): Promise<void> {
    this.create(name, backing);
    await this.add(name);
    const job = await this.client.start('blockdev-backup', this.increment(name));
    await job.completed();
    await this.client.execute('blockdev-del', { 'node-name': name });
  }

  increment(name: string) {
    return {
      'job-id': name, device: 'disk', target: name, sync: 'incremental', bitmap: 'changes',
    } as const;
  }

  async dirtyBytes(): Promise<number | undefined> {
    const nodes = await this.client.execute('query-named-block-nodes', { flat: true });
    const disk = nodes.find((node) => node['node-name'] === 'disk');
    return disk?.['dirty-bitmaps']?.find(({ name }) => name === 'changes')?.count;
  }

  restore(name: string): Buffer {
    const paths = [this.path(`${name}.qcow2`), this.path('restored.raw')];
    execFileSync(qemuImg ?? '', ['convert', '-O', 'raw', ...paths]);
    return readFileSync(this.path('restored.raw'));
  }

  /** What `name` and all below it restore is the given state, and no image is damaged. */
  expectRestores(name: string, state: Uint8Array): void {
    expect(this.restore(name).equals(state)).toBe(true);
    execFileSync(qemuImg ?? '', ['check', '-q', this.path(`${name}.qcow2`)]);
  }
}

describe.skipIf(qemuImg === null || qemuIo === null)('incremental backup', () => {
  let site: Site;
  let daemon: Daemon | null = null;

  beforeEach(() => {
    site = new Site();
    site.create('disk');
  });
  afterEach(async () => {
    await daemon?.kill();
    daemon = null;
    rmSync(site.directory, { recursive: true, force: true });
  });

  for (const [who, start] of DAEMONS) {
    const isReal = who === 'the real daemon';
    const skipped = isReal && realDaemon === null;
    /** By default the real daemon plays two of the four. */
    const repeated = skipped || (isReal && !isCampaign);
    const boot = async (): Promise<void> => {
      daemon = await start(site.directory);
      site.client = daemon.client;
      await site.add('disk');
    };

    it.skipIf(skipped)(`${who}: a chain restores each of its states`, async () => {
      await boot();
      await site.write(0, 40);
      await site.backUpAll('full');
      const states: [string, Uint8Array][] = [['full', site.disk.slice()]];
      for (const [index, [first, count]] of ([[3, 2], [50, 20], [4, 47]] as const).entries()) {
        await site.write(first, count);
        expect(await site.dirtyBytes()).toBe(count * CLUSTER);
        await site.backUpChanges(`inc${index}`, index === 0 ? 'full' : `inc${index - 1}`);
        states.push([`inc${index}`, site.disk.slice()]);
        expect(await site.dirtyBytes()).toBe(0);
      }
      for (const [name, state] of states) site.expectRestores(name, state);
    });

    it.skipIf(repeated)(`${who}: a cancelled increment changes nothing`, async () => {
      await boot();
      await site.write(0, 40);
      await site.backUpAll('full');
      const before = site.disk.slice();
      await site.write(10, 90);
      site.create('given-up');
      await site.add('given-up');
      const job = await site.client.start('blockdev-backup', {
        ...site.increment('given-up'), speed: CLUSTER,
      });
      await job.cancel();
      expect((await job.done).result).toBe('cancelled');
      expect(await site.dirtyBytes()).toBe(90 * CLUSTER);
      await site.client.execute('blockdev-del', { 'node-name': 'given-up' });
      await site.write(0, 1);
      await site.backUpChanges('inc', 'full');
      site.expectRestores('inc', site.disk);
      site.expectRestores('full', before);
    });

    it.skipIf(repeated)(`${who}: a full disk stops an increment until there is room`, async () => {
      await boot();
      await site.backUpAll('full');
      await site.write(7, 30);
      site.create('inc', 'full');
      const file = { driver: 'file', filename: site.path('inc.qcow2') };
      const full = [{ event: 'write_aio', iotype: 'write', errno: 28, once: true }];
      await site.add('inc', { file: { driver: 'blkdebug', 'inject-error': full, image: file } });
      const job = await site.client.start('blockdev-backup', {
        ...site.increment('inc'), 'on-target-error': 'enospc',
      });
      expect(await job.stopped()).toMatchObject({ operation: 'write', action: 'stop' });
      const [info] = await site.client.execute('query-block-jobs');
      expect(info).toMatchObject({ 'io-status': 'nospace' });
      await job.resume();
      await job.completed();
      expect(await site.dirtyBytes()).toBe(0);
      await site.client.execute('blockdev-del', { 'node-name': 'inc' });
      site.expectRestores('inc', site.disk);
    });

    it.skipIf(skipped)(`${who}: after a crash the chain restores, a new one begins`, async () => {
      await boot();
      await site.write(0, 60);
      await site.backUpAll('full');
      await site.write(20, 5);
      await site.backUpChanges('inc0', 'full');
      const kept = site.disk.slice();
      await site.write(1, 100);
      site.create('torn', 'inc0');
      await site.add('torn');
      const job = await site.client.start('blockdev-backup', {
        ...site.increment('torn'), speed: CLUSTER,
      });
      await job.reach(['running']);
      await daemon?.kill();
      await job.done.catch(() => undefined);
      site.expectRestores('inc0', kept);
      // There what concluded jobs have written may be lost.
      if (who === 'our daemon') expect(site.restore('disk').equals(site.disk)).toBe(true);
      else site.disk.set(site.restore('disk'));
      await boot();
      // Bitmaps in memory died with the daemon: only a full copy knows what the disk holds.
      expect(await site.dirtyBytes()).toBeUndefined();
      await site.backUpAll('again');
      const copied = site.disk.slice();
      await site.write(5, 1);
      await site.backUpChanges('inc1', 'again');
      site.expectRestores('again', copied);
      site.expectRestores('inc1', site.disk);
      site.expectRestores('inc0', kept);
    });
  }
});
