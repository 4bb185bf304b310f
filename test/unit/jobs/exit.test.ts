// SPDX-License-Identifier: Apache-2.0
// The end of the program with jobs at work.
import { describe, expect, it } from 'vitest';
import { JOB_LIMITS } from '../../../src/base/index.js';
import type { ManualClock } from '../../../src/base/index.js';
import type { Job, JobRegistry, JobWork } from '../../../src/jobs/index.js';
import { makeStage, turns } from '../../helpers/job-stage.js';

function startJob(jobs: JobRegistry, id: string, work: JobWork): Job {
  const job = jobs.create({
    id, type: 'stream', blockJob: true, autoFinalize: true, autoDismiss: true,
  });
  job.attachWork(work);
  job.start();
  return job;
}

const sleeper: JobWork = {
  async run(job) {
    for (;;) await job.sleep(1000);
  },
};

describe('the way out', () => {
  it('cancels the newest job first, each paused before', async () => {
    const { jobs, trace } = makeStage();
    startJob(jobs, 'a', sleeper);
    startJob(jobs, 'b', sleeper);
    await turns(5);
    trace.splice(0);
    await jobs.cancelAll();
    const end = ['running', 'aborting'].map((status) => `JSC ${status}`);
    const gone = ['BLOCK_JOB_CANCELLED', 'JSC concluded', 'JSC null'];
    const one = [...end, ...gone];
    expect(trace).toEqual(['JSC paused', 'JSC paused', ...one, ...one]);
    expect(jobs.list()).toEqual([]);
  });

  it('lets others end while one hangs in a request', async () => {
    const { jobs, graph } = makeStage();
    const clock = graph.clock as ManualClock;
    let answer = (): void => undefined;
    const other = startJob(jobs, 'other', sleeper);
    const hung = startJob(jobs, 'hung', {
      run: () => new Promise<void>((resolve) => void (answer = resolve)),
    });
    await turns(5);
    const out = jobs.cancelAll();
    await turns(5);
    clock.advance(JOB_LIMITS.exitMomentMs);
    await other.ended;
    expect([other.status, hung.status]).toEqual(['null', 'running']);
    answer();
    await out;
    expect([hung.status, jobs.list()]).toEqual(['null', []]);
  });
});
