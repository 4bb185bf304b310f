// SPDX-License-Identifier: Apache-2.0
// Options that change how a job copies, each by what it does to the copying.
import { describe, expect, it } from 'vitest';
import { startDriveMirror, startMirror } from '../../../src/jobs/index.js';
import type { Job } from '../../../src/jobs/index.js';
import {
  createImage,
  firstDifference,
  Guest,
  makeStage,
  openImage,
  readAll,
  turns,
} from '../../helpers/job-stage.js';
import type { Stage } from '../../helpers/job-stage.js';
import { startBackup } from '../../helpers/start-backup.js';

const CLUSTER = 65_536;
const SIZE = 64 * CLUSTER;

/** How much the lanes had to do at once. */
interface Load {
  batches: number;
  bytes: number;
  largest: number;
}

/** A disk full of data, an empty target, and lanes that answer late. */
async function loadedStage(): Promise<Stage & { readonly guest: Guest; readonly load: Load }> {
  const load = { batches: 0, bytes: 0, largest: 0 };
  const now = { batches: 0, bytes: 0 };
  const stage = makeStage({
    lanes: (lanes) => ({
      width: lanes.width,
      warmUp: () => lanes.warmUp(),
      close: () => lanes.close(),
      async run(batch, owner) {
        const bytes = batch.task.steps.reduce((sum, { length }) => sum + length, 0);
        now.batches += 1;
        now.bytes += bytes;
        load.batches = Math.max(load.batches, now.batches);
        load.bytes = Math.max(load.bytes, now.bytes);
        load.largest = Math.max(load.largest, bytes);
        await turns(40);
        const results = await lanes.run(batch, owner);
        now.batches -= 1;
        now.bytes -= bytes;
        return results;
      },
    }),
  });
  for (const name of ['disk', 'target']) {
    await createImage(stage, { name, size: SIZE });
    await openImage(stage, name);
  }
  const guest = await Guest.attach(stage, stage.graph.require('disk'));
  for (let at = 0; at < SIZE; at += CLUSTER) {
    await guest.write(at, new Uint8Array(CLUSTER).fill(1 + (at / CLUSTER) % 251));
  }
  return { ...stage, guest, load };
}

async function ready(job: Job): Promise<void> {
  for (let turn = 0; turn < 20_000 && !job.ready; turn += 1) await turns(1);
  expect(job.ready).toBe(true);
}

async function expectCopied({ graph, guest }: Stage & { readonly guest: Guest }): Promise<void> {
  expect(firstDifference(await readAll(graph.require('target')), guest.expected)).toBe(-1);
}

const MIRROR = { 'job-id': 'm', device: 'disk', target: 'target', sync: 'full' } as const;

describe('a backup', () => {
  for (const workers of [1, 3]) {
    it(`has ${workers} copies in flight where max-workers says so`, async () => {
      const stage = await loadedStage();
      const perf = { 'max-workers': workers, 'max-chunk': CLUSTER };
      const job = await startBackup(stage.jobs, { ...MIRROR, 'x-perf': perf });
      await job.ended;
      expect(stage.load).toEqual({ batches: workers, bytes: workers * CLUSTER, largest: CLUSTER });
      await expectCopied(stage);
    });
  }

  it('copies zeroes as data where the host may copy by itself', async () => {
    for (const hostCopies of [false, true]) {
      const stage = await loadedStage();
      await stage.guest.write(0, new Uint8Array(4 * CLUSTER));
      const perf = { 'use-copy-range': hostCopies };
      await (await startBackup(stage.jobs, { ...MIRROR, 'x-perf': perf })).ended;
      await expectCopied(stage);
      const status = await stage.graph.require('target').blockStatus(0, CLUSTER, true);
      expect(status.data).toBe(hostCopies);
    }
  });

  it('copies no more at once than max-chunk, in whole units', async () => {
    const stage = await loadedStage();
    const perf = { 'max-workers': 1, 'max-chunk': 5 * CLUSTER + 4096 };
    await (await startBackup(stage.jobs, { ...MIRROR, 'x-perf': perf })).ended;
    expect(stage.load.largest).toBe(5 * CLUSTER);
    await expectCopied(stage);
  });
});

describe('a mirror', () => {
  for (const [bufSize, inFlight] of [[1, CLUSTER], [4 * CLUSTER, 4 * CLUSTER]] as const) {
    it(`with a buf-size of ${bufSize} has ${inFlight} bytes in flight at most`, async () => {
      const stage = await loadedStage();
      const job = await startMirror(stage.jobs, { ...MIRROR, 'buf-size': bufSize });
      await ready(job);
      expect(stage.load.bytes).toBe(inFlight);
      await expectCopied(stage);
      await job.cancelBlock(true);
    });
  }

  it('copies a whole bit of its granularity for a small write', async () => {
    for (const granularity of [0, 512, 8 * CLUSTER]) {
      const stage = await loadedStage();
      const job = await startMirror(stage.jobs, { ...MIRROR, granularity });
      await ready(job);
      const before = job.progress;
      await stage.guest.write(512, new Uint8Array(512).fill(0xee));
      for (let turn = 0; turn < 500 && job.progress === before; turn += 1) await turns(1);
      expect(job.progress - before).toBe(Math.max(CLUSTER, granularity));
      await expectCopied(stage);
      await job.cancelBlock(true);
    }
  });

  it('without unmap keeps the space of what it zeroes in its target', async () => {
    const left = async (unmap: boolean): Promise<number> => {
      const stage = await loadedStage();
      await createImage(stage, { name: 'empty', size: SIZE });
      await openImage(stage, 'empty');
      await stage.guest.backend.flush();
      await stage.guest.backend.detach();
      await stage.graph.close(stage.graph.require('disk'));
      const job = await startDriveMirror(stage.jobs, {
        'job-id': 'm', device: 'empty', target: 'disk.qcow2', mode: 'existing', sync: 'full',
        'node-name': 'copy', unmap,
      });
      await ready(job);
      expect((await readAll(stage.graph.require('copy'))).every((byte) => byte === 0)).toBe(true);
      await job.cancelBlock(false);
      await job.ended;
      return (await stage.host.stat('disk.qcow2'))?.allocatedBytes ?? 0;
    };
    expect(await left(true)).toBeLessThan(SIZE / 2);
    expect(await left(false)).toBeGreaterThan(SIZE - CLUSTER);
  });
});
