// SPDX-License-Identifier: Apache-2.0
// discard-source: what a backup has copied is let go of in the source, and nothing is lost by it.
import { describe, expect, it } from 'vitest';
import { Permission, SeededRandom } from '../../../src/base/index.js';
import type { NodeOptions } from '../../../src/block/index.js';
import { CrashDisk } from '../../../src/host/index.js';
import type { MemoryHost } from '../../../src/host/index.js';
import type { Job } from '../../../src/jobs/index.js';
import {
  createImage,
  firstDifference,
  Guest,
  makeGraph,
  makeStage,
  openImage,
  readAll,
  turns,
} from '../../helpers/job-stage.js';
import type { Stage } from '../../helpers/job-stage.js';
import { startBackup } from '../../helpers/start-backup.js';

const UNIT = 65_536;
const UNITS = 16;
const SIZE = UNITS * UNIT;

interface Fleecing extends Stage {
  readonly guest: Guest;
  /** The disk when the snapshot was taken. */
  readonly before: Uint8Array;
}

function filled(byte: number, length = UNIT): Uint8Array {
  return new Uint8Array(length).fill(byte);
}

/** Whole units of data but for the holes at 3 and 9; all of it on disk. */
async function fill(stage: Stage, name: string): Promise<Uint8Array> {
  const guest = await Guest.attach(stage, stage.graph.require(name));
  for (let unit = 0; unit < UNITS; unit += 1) {
    if (unit !== 3 && unit !== 9) await guest.write(unit * UNIT, filled(unit + 1));
  }
  await guest.backend.flush();
  await guest.backend.detach();
  return guest.expected;
}

async function makeImages(stage: Stage, names: readonly string[]): Promise<void> {
  for (const name of names) {
    await createImage(stage, { name, size: SIZE });
    await openImage(stage, name);
  }
}

/** disk ← cbw → scratch, the snapshot `then` beside it, and the empty target. */
async function fleecing(filter: object = {}): Promise<Fleecing> {
  const stage = makeStage();
  await makeImages(stage, ['disk', 'scratch', 'target']);
  const before = await fill(stage, 'disk');
  const open = (options: object): Promise<unknown> => stage.graph.open(options as NodeOptions);
  await open({
    driver: 'copy-before-write', 'node-name': 'cbw', file: 'disk', target: 'scratch', ...filter,
  });
  await open({ driver: 'snapshot-access', 'node-name': 'then', file: 'cbw', discard: 'unmap' });
  const guest = await Guest.attach(stage, stage.graph.require('cbw'));
  return { ...stage, guest, before };
}

const FLEECE = {
  'job-id': 'b', device: 'then', target: 'target', sync: 'full', 'discard-source': true,
} as const;
const PLAIN = { ...FLEECE, device: 'disk' } as const;

async function stored(host: MemoryHost, name: string): Promise<number> {
  return (await host.stat(`${name}.qcow2`))?.allocatedBytes ?? 0;
}

async function same(stage: Stage, name: string, expected: Uint8Array): Promise<void> {
  expect(firstDifference(await readAll(stage.graph.require(name)), expected)).toBe(-1);
}

async function readUnit(stage: Stage, name: string, unit: number): Promise<Uint8Array> {
  const buffer = new Uint8Array(UNIT);
  const request = { kind: 'read', offset: unit * UNIT, length: UNIT, buffer, flags: 0 } as const;
  await stage.graph.require(name).read(request);
  return buffer;
}

async function until(job: Job, atLeast: number): Promise<void> {
  for (let turn = 0; turn < 500 && job.progress < atLeast; turn += 1) await turns(1);
}

describe('a backup of a snapshot that discards its source', () => {
  it('frees the old bytes that were kept aside, and the target has all of them', async () => {
    const stage = await fleecing();
    await stage.guest.write(0, filled(0xee, 8 * UNIT));
    const kept = await stored(stage.host, 'scratch');
    expect(kept).toBeGreaterThan(7 * UNIT);
    const job = await startBackup(stage.jobs, FLEECE);
    await job.ended;
    expect(job.info().error).toBeUndefined();
    await same(stage, 'target', stage.before);
    await same(stage, 'disk', stage.guest.expected);
    expect(await stored(stage.host, 'scratch')).toBeLessThan(kept - 5 * UNIT);
  });

  it('has nothing kept aside afterwards, holes included', async () => {
    const stage = await fleecing();
    const kept = await stored(stage.host, 'scratch');
    await (await startBackup(stage.jobs, FLEECE)).ended;
    await stage.guest.write(0, filled(0xee, SIZE));
    expect(await stored(stage.host, 'scratch')).toBe(kept);
    await expect(readUnit(stage, 'then', 0)).rejects.toThrow('Permission denied');
    await same(stage, 'target', stage.before);
  });

  it('without the option everything stays to be read', async () => {
    const stage = await fleecing();
    await stage.guest.write(0, filled(0xee, 4 * UNIT));
    await (await startBackup(stage.jobs, { ...FLEECE, 'discard-source': false })).ended;
    await same(stage, 'then', stage.before);
  });

  /** How many units are in the target only, and how many still in the snapshot. */
  async function whereUnitsAre(stage: Fleecing): Promise<{ copied: number; left: number }> {
    let [copied, left] = [0, 0];
    for (let unit = 0; unit < UNITS; unit += 1) {
      const wanted = stage.before.subarray(unit * UNIT, (unit + 1) * UNIT);
      const inTarget = firstDifference(await readUnit(stage, 'target', unit), wanted) === -1;
      const inSnapshot = await readUnit(stage, 'then', unit).then(
        (bytes) => firstDifference(bytes, wanted) === -1,
        () => false,
      );
      expect(inTarget || inSnapshot, `unit ${unit}`).toBe(true);
      if (inSnapshot) left += 1;
      else copied += 1;
    }
    return { copied, left };
  }

  it('cancelled, each unit is in the target or still in the snapshot', async () => {
    const stage = await fleecing();
    await stage.guest.write(4 * UNIT, filled(0xee, 8 * UNIT));
    const job = await startBackup(stage.jobs, { ...FLEECE, speed: 10 * UNIT });
    await until(job, UNIT);
    await job.cancel();
    await job.ended;
    const { copied, left } = await whereUnitsAre(stage);
    expect(Math.min(copied, left)).toBeGreaterThan(0);
  });

  it('cancelled at any turn, with a guest that writes, it loses nothing either', async () => {
    for (let moment = 0; moment < 36; moment += 3) {
      const stage = await fleecing();
      await stage.guest.write(4 * UNIT, filled(0xee, 8 * UNIT));
      const perf = { 'max-workers': 2, 'max-chunk': UNIT };
      const job = await startBackup(stage.jobs, { ...FLEECE, 'x-perf': perf });
      for (let turn = 0; turn < moment && !job.cancelled; turn += 1) {
        await stage.guest.write((turn % UNITS) * UNIT + 512, filled(0xdd, 512));
        await turns(1);
      }
      if (job.status === 'running') await job.cancel();
      await job.ended;
      await whereUnitsAre(stage);
      await same(stage, 'disk', stage.guest.expected);
    }
  });

  it('a write that fails discards nothing, and is made good after the resume', async () => {
    const stage = await fleecing();
    await stage.guest.write(0, filled(0xee, SIZE));
    stage.host.faults.add({
      operation: 'write', nth: 1, errno: 'ENOSPC', path: 'target.qcow2', lasting: true,
    });
    const job = await startBackup(stage.jobs, { ...FLEECE, 'on-target-error': 'enospc' });
    for (let turn = 0; turn < 500 && job.blockInfo()['io-status'] === 'ok'; turn += 1) {
      await turns(1);
    }
    await turns();
    for (const unit of [0, 8, 15]) {
      const wanted = stage.before.subarray(unit * UNIT, (unit + 1) * UNIT);
      expect(firstDifference(await readUnit(stage, 'then', unit), wanted)).toBe(-1);
    }
    stage.host.faults.clear();
    job.resume();
    await job.ended;
    expect(job.info().error).toBeUndefined();
    await same(stage, 'target', stage.before);
  });

  it('a discard that fails is no failure of the backup', async () => {
    const stage = await fleecing();
    await stage.guest.write(0, filled(0xee, SIZE));
    stage.host.faults.add({
      operation: 'discard', nth: 1, errno: 'EIO', path: 'scratch.qcow2', lasting: true,
    });
    const job = await startBackup(stage.jobs, FLEECE);
    await job.ended;
    expect(job.info().error).toBeUndefined();
    await same(stage, 'target', stage.before);
  });

  it('units of the snapshot larger than those of the job want min-cluster-size', async () => {
    const shrinks = async (perf: object): Promise<boolean> => {
      const stage = await fleecing({ 'min-cluster-size': 4 * UNIT });
      await stage.guest.write(0, filled(0xee, SIZE));
      const kept = await stored(stage.host, 'scratch');
      await (await startBackup(stage.jobs, { ...FLEECE, 'x-perf': perf })).ended;
      await same(stage, 'target', stage.before);
      return (await stored(stage.host, 'scratch')) < kept - 8 * UNIT;
    };
    expect(await shrinks({ 'max-chunk': UNIT })).toBe(false);
    expect(await shrinks({ 'max-chunk': 4 * UNIT, 'min-cluster-size': 4 * UNIT })).toBe(true);
  });
});

describe('a backup of a disk that discards its source', () => {
  async function plainStage(host?: CrashDisk): Promise<Stage & { readonly before: Uint8Array }> {
    const stage = makeStage(host === undefined ? {} : { host });
    await makeImages(stage, ['disk', 'target']);
    const before = await fill(stage, 'disk');
    return { ...stage, before };
  }

  it('leaves the disk empty and the target with all of it', async () => {
    const stage = await plainStage();
    const full = await stored(stage.host, 'disk');
    await (await startBackup(stage.jobs, PLAIN)).ended;
    await same(stage, 'target', stage.before);
    await same(stage, 'disk', new Uint8Array(SIZE));
    expect(await stored(stage.host, 'disk')).toBeLessThan(full - 12 * UNIT);
  });

  it('loses no write that a guest makes meanwhile, whole units or parts', async () => {
    const stage = await plainStage();
    const guest = await Guest.attach(stage, stage.graph.require('disk'));
    const job = await startBackup(stage.jobs, { ...PLAIN, speed: 20 * UNIT });
    const written = new Map<number, number>();
    await until(job, UNIT);
    let over = false;
    void job.ended.then(() => (over = true));
    const random = new SeededRandom(3);
    while (!over) {
      const sector = random.below(SIZE / 512);
      const byte = 1 + random.below(255);
      await guest.write(sector * 512, filled(byte, 512));
      written.set(sector, byte);
      await turns(2);
      if (written.size === 40) job.setSpeed(0);
    }
    await same(stage, 'target', stage.before);
    const disk = await readAll(stage.graph.require('disk'));
    for (const [sector, byte] of written) {
      expect(disk[sector * 512], `sector ${sector}`).toBe(byte);
    }
    expect(written.size).toBeGreaterThan(39);
  });

  it('at a power cut each unit is in the target or still in the disk', async () => {
    const disk = new CrashDisk({ seed: 4 });
    const stage = await plainStage(disk);
    for (const name of ['disk', 'target']) await stage.graph.require(name).flush();
    const random = new SeededRandom(4);
    const survivors: MemoryHost[] = [];
    disk.onWrite = () => survivors.push(disk.afterPowerLoss(random), disk.durable());
    const job = await startBackup(stage.jobs, { ...PLAIN, 'x-perf': { 'max-chunk': 2 * UNIT } });
    await job.ended;
    expect(survivors.length).toBeGreaterThan(20);
    for (const survivor of survivors) {
      const graph = makeGraph(survivor);
      const views: Uint8Array[] = [];
      for (const name of ['disk', 'target']) {
        views.push(await readAll(await graph.openImage(`${name}.qcow2`, 'qcow2', true)));
      }
      for (let offset = 0; offset < SIZE; offset += UNIT) {
        const wanted = stage.before.subarray(offset, offset + UNIT);
        const found = views.some(
          (view) => firstDifference(view.subarray(offset, offset + UNIT), wanted) === -1,
        );
        expect(found, `offset ${offset}`).toBe(true);
      }
    }
  });

  it('a target that cannot be flushed fails the job, and the disk keeps all', async () => {
    const stage = await plainStage();
    stage.host.faults.add({
      operation: 'sync', nth: 1, errno: 'EIO', path: 'target.qcow2', lasting: true,
    });
    const job = await startBackup(stage.jobs, { ...PLAIN, 'auto-dismiss': false });
    await job.ended;
    expect(job.info().error).toBe('Input/output error');
    await same(stage, 'disk', stage.before);
  });

  it('is refused for a source that is read-only, before there is a job', async () => {
    const stage = await plainStage();
    await stage.graph.close(stage.graph.require('disk'));
    await openImage(stage, 'disk', { readOnly: true });
    const refused = startBackup(stage.jobs, PLAIN);
    await expect(refused).rejects.toThrow(/^Block node is read-only$/);
    expect(stage.trace).toEqual([]);
  });

  it('is refused beside a user that lets nobody write, and leaves nothing', async () => {
    const stage = await plainStage();
    const user = await stage.graph.attach(stage.graph.require('disk'), 'a reader', {
      taken: Permission.consistentRead,
      shared: Permission.all & ~Permission.write,
    });
    await expect(startBackup(stage.jobs, PLAIN)).rejects.toThrow(
      /^Permission conflict on node '.*': permissions 'write' are both required by backup job 'b'/,
    );
    expect(stage.jobs.list()).toEqual([]);
    expect([...stage.graph.nodes].filter((node) => node.driver.kind === 'filter')).toEqual([]);
    await user.detach();
    await (await startBackup(stage.jobs, PLAIN)).ended;
    await same(stage, 'target', stage.before);
  });
});
