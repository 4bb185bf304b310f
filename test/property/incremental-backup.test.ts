// SPDX-License-Identifier: Apache-2.0
// A backup's bitmap may say too much, never too little: whatever guests write, whatever fails,
// whenever the job is paused or cancelled, and with the power cut right after its end.
import { describe, expect, it } from 'vitest';
import { ManualClock, SeededRandom } from '../../src/base/index.js';
import { addBitmap, findBitmap, shownBitmapsOf } from '../../src/block/index.js';
import { CrashDisk } from '../../src/host/index.js';
import type { Job } from '../../src/jobs/index.js';
import {
  createImage,
  firstDifference,
  Guest,
  makeStage,
  openImage,
  openRaw,
  readAll,
  scribble,
  turns,
} from '../helpers/job-stage.js';
import type { Stage } from '../helpers/job-stage.js';
import { forEachSeed, runs } from '../helpers/seeds.js';
import { startBackup } from '../helpers/start-backup.js';

const SIZE = 3 * 2 ** 19 + 1536;
const SECTOR = 512;

interface BackupStage extends Stage {
  readonly host: CrashDisk;
  readonly clock: ManualClock;
  readonly guest: Guest;
  readonly random: SeededRandom;
  /** What the node read as when its bitmap was made. */
  readonly previous: Uint8Array;
}

async function makeBackupStage(seed: number): Promise<BackupStage> {
  const random = new SeededRandom(seed);
  const clock = new ManualClock();
  const host = new CrashDisk({ seed, clock });
  const stage = makeStage({ host });
  const clusterSize = [4096, 65_536, 262_144][random.below(3)] ?? 0;
  await createImage(stage, { name: 'disk', size: SIZE, clusterSize });
  const disk = await openImage(stage, 'disk');
  await scribble(stage, disk, { seed, count: 6 });
  const granularity = [512, 65_536, 524_288][random.below(3)] ?? 0;
  addBitmap(disk, { name: 'm', granularity });
  const previous = await readAll(disk);
  const guest = await Guest.attach(stage, disk);
  for (let count = random.below(5); count > 0; count -= 1) await guest.act(random);
  return { ...stage, host, clock, guest, random, previous };
}

const MODES = [
  ['incremental', undefined],
  ['bitmap', 'on-success'],
  ['bitmap', 'always'],
  ['bitmap', 'never'],
  ['full', 'on-success'],
  ['full', 'always'],
  ['top', 'on-success'],
  ['top', 'always'],
] as const;

type Modes = (typeof MODES)[number];

/** What the target holds before: the last backup, rubbish, or nothing. */
async function addTarget(stage: BackupStage, [sync]: Modes): Promise<void> {
  const contents = sync === 'full' ? new Uint8Array(SIZE).fill(0x5a) : stage.previous;
  stage.host.putFile('target.raw', sync === 'top' ? new Uint8Array(0) : contents, SIZE);
  await openRaw(stage, 'target');
}

function breakSomething({ host, random }: BackupStage): void {
  const kinds = ['write', 'write-zeroes', 'sync', 'read'] as const;
  const operation = kinds[random.below(kinds.length)] ?? 'write';
  const nth = host.faults.count(operation) + 1 + random.below(6);
  const path = operation === 'read' ? 'disk.qcow2' : 'target.raw';
  host.faults.add({ operation, nth, path, errno: 'EIO', lasting: random.chance(0.5) });
}

/** Guests write, users pause, resume and cancel, until the job has ended. */
async function live(stage: BackupStage, job: Job): Promise<void> {
  const { guest, host, clock, random } = stage;
  let running = true;
  void job.ended.then(() => (running = false));
  const isActive = (): boolean => ['running', 'paused'].includes(job.status);
  const fate = random.below(4);
  const cancelAt = random.below(30);
  if (fate === 1) breakSomething(stage);
  for (let count = 0; running && count < 120; count += 1) {
    // Where the target takes no old bytes the guest's write fails.
    await guest.act(random).catch(() => undefined);
    if (random.chance(0.5)) await turns(random.below(3));
    // What failed and was ignored is tried again a little later.
    clock.advance(50);
    if (fate === 2 && count >= cancelAt && isActive()) await job.cancel();
    if (!isActive()) continue;
    if (random.chance(0.1)) {
      if (job.blockInfo().paused) host.faults.clear();
      else job.pause();
    }
    if (job.blockInfo().paused && random.chance(0.4) && isActive()) job.resume();
  }
  host.faults.clear();
  while (running) {
    if (isActive() && job.blockInfo().paused) job.resume();
    clock.advance(50);
    await turns(1);
  }
}

/** Sectors that differ between the two and have no bit. */
function forgotten(stage: BackupStage, known: Uint8Array, now: Uint8Array): number[] {
  const bitmap = findBitmap(stage.graph.require('disk'), 'm');
  const sectors: number[] = [];
  for (let at = 0; at < SIZE; at += SECTOR) {
    const left = Buffer.from(known.buffer, known.byteOffset + at, SECTOR);
    const right = Buffer.from(now.buffer, now.byteOffset + at, SECTOR);
    if (!left.equals(right) && bitmap?.isDirty(at) !== true) sectors.push(at);
  }
  return sectors;
}

async function check(seed: number, modes: Modes): Promise<void> {
  const stage = await makeBackupStage(seed);
  const { graph, host, guest, previous, random } = stage;
  await addTarget(stage, modes);
  const disk = graph.require('disk');
  const before = await readAll(disk);
  const [sync, mode] = modes;
  const policies = ['report', 'stop', 'ignore', 'enospc'] as const;
  const policy = policies[random.below(policies.length)] ?? 'report';
  const job = await startBackup(stage.jobs, {
    'job-id': 'b',
    device: 'disk',
    target: 'target',
    sync,
    bitmap: 'm',
    ...(mode === undefined ? {} : { 'bitmap-mode': mode }),
    'on-source-error': policy,
    'on-target-error': policy,
    'x-perf': { 'max-workers': 1 + random.below(3), 'max-chunk': 65_536 },
  });
  // With nothing to copy it is over by now.
  expect(findBitmap(disk, 'm')?.busy).toBe(job.status !== 'null');
  await live(stage, job);
  const copied = host.durable().fileContents('target.raw');
  const now = await readAll(disk);
  expect(shownBitmapsOf(disk)).toEqual([findBitmap(disk, 'm')]);
  expect(findBitmap(disk, 'm')).toMatchObject({ busy: false, enabled: true, successor: null });
  expect([...graph.nodes].filter((node) => node.driver.kind === 'filter')).toEqual([]);
  const handedOver = mode === 'always' || (mode !== 'never' && !job.failed);
  expect(forgotten(stage, handedOver ? copied : previous, now)).toEqual([]);
  if (!job.failed) expect(firstDifference(copied, before)).toBe(-1);
  await guest.backend.detach();
}

describe('the bitmap of a backup', () => {
  for (const modes of MODES) {
    it(`${modes.join(' ')}: forgets nothing that a backup lacks`, async () => {
      await forEachSeed(runs(12, 400), (seed) => check(seed, modes));
    });
  }
});
