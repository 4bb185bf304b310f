// SPDX-License-Identifier: Apache-2.0
// Hundreds of jobs at a time and thousands one after another: memory stays bounded, nothing stays.
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { describe, expect, it } from 'vitest';
import { addBitmap, shownBitmapsOf } from '../../../src/block/index.js';
import type { NodeOptions } from '../../../src/block/index.js';
import type { Job } from '../../../src/jobs/index.js';
import { makeStage, turns } from '../../helpers/job-stage.js';
import type { Stage } from '../../helpers/job-stage.js';
import { startBackup } from '../../helpers/start-backup.js';

const PAUSED_JOBS = 500;
const SHORT_JOBS = 2000;
const MIB = 2 ** 20;

setFlagsFromString('--expose-gc');
const collect = runInNewContext('gc') as () => void;

async function usedMiB(): Promise<number> {
  await turns(3);
  collect();
  const { heapUsed, external } = process.memoryUsage();
  return (heapUsed + external) / MIB;
}

async function addNull(stage: Stage, name: string): Promise<void> {
  await stage.graph.open({
    driver: 'null-co', 'node-name': name, size: 16 * MIB, 'read-zeroes': true,
  } as NodeOptions);
}

describe('many jobs', () => {
  it('500 paused jobs are small, and each of them goes on or is cancelled', async () => {
    const stage = makeStage();
    for (let index = 0; index < PAUSED_JOBS; index += 1) {
      await addNull(stage, `source${index}`);
      await addNull(stage, `target${index}`);
    }
    const nodes = [...stage.graph.nodes].length;
    const before = await usedMiB();
    const jobs: Job[] = [];
    for (let index = 0; index < PAUSED_JOBS; index += 1) {
      const job = await startBackup(stage.jobs, {
        'job-id': `j${index}`,
        device: `source${index}`,
        target: `target${index}`,
        sync: index % 2 === 0 ? 'none' : 'full',
        speed: 1,
      });
      if (job.status === 'running') job.pause();
      jobs.push(job);
    }
    await turns(5);
    expect(stage.jobs.list().every(({ status }) => status === 'paused')).toBe(true);
    expect((await usedMiB()) - before).toBeLessThan(64);
    const ends = jobs.map(async (job, index) => {
      if (index % 2 === 0) await job.cancel();
      else {
        job.resume();
        job.setSpeed(0);
      }
      await job.ended;
    });
    await Promise.all(ends);
    expect(stage.jobs.list()).toEqual([]);
    expect([...stage.graph.nodes].length).toBe(nodes);
  });

  it('thousands of short jobs leave nothing behind', async () => {
    const stage = makeStage();
    await addNull(stage, 'source');
    await addNull(stage, 'target');
    const source = stage.graph.require('source');
    addBitmap(source, { name: 'changes' });
    const nodes = [...stage.graph.nodes].length;
    const runMany = async (count: number): Promise<void> => {
      for (let index = 0; index < count; index += 1) {
        const job = await startBackup(stage.jobs, {
          'job-id': 'short',
          device: 'source',
          target: 'target',
          sync: 'full',
          bitmap: 'changes',
          'bitmap-mode': index % 2 === 0 ? 'on-success' : 'always',
        });
        await (index % 3 === 0 && job.status === 'running' ? job.cancel() : job.ended);
        await job.ended;
        stage.trace.length = 0;
        stage.events.length = 0;
      }
    };
    await runMany(SHORT_JOBS / 10);
    const before = await usedMiB();
    await runMany(SHORT_JOBS);
    expect((await usedMiB()) - before).toBeLessThan(8);
    expect(stage.jobs.list()).toEqual([]);
    expect([...stage.graph.nodes].length).toBe(nodes);
    expect(shownBitmapsOf(source)).toHaveLength(1);
    expect([...source.parents]).toEqual([]);
  });
});
