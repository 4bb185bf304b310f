// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from 'vitest';
import { BlockError, ManualClock } from '../../../src/base/index.js';
import { Job, JobTransaction } from '../../../src/jobs/index.js';
import type { JobEvent, JobWork } from '../../../src/jobs/index.js';

interface Stage {
  readonly clock: ManualClock;
  readonly trace: string[];
  readonly job: Job;
}

interface StageOptions {
  readonly id?: string;
  readonly autoFinalize?: boolean;
  readonly autoDismiss?: boolean;
  readonly transaction?: JobTransaction;
  readonly trace?: string[];
}

function describeEvent({ name, data }: JobEvent): string {
  if (name === 'JOB_STATUS_CHANGE') return String(data['status']);
  return 'error' in data ? `${name} ${String(data['error'])}` : name;
}

function stage(work: JobWork, options: StageOptions = {}): Stage {
  const clock = new ManualClock();
  const trace = options.trace ?? [];
  const job = new Job(
    {
      id: options.id ?? 'j0',
      type: 'stream',
      blockJob: true,
      autoFinalize: options.autoFinalize ?? true,
      autoDismiss: options.autoDismiss ?? true,
      ...(options.transaction === undefined ? {} : { transaction: options.transaction }),
    },
    { clock, emit: (event) => void trace.push(describeEvent(event)), forget: () => undefined },
  );
  job.attachWork(work);
  return { clock, trace, job };
}

/** Sleeps in slices until told to end. */
class Sleeper implements JobWork {
  done = false;
  async run(job: Job): Promise<void> {
    while (!this.done) await job.sleep(100);
  }
}

const turns = async (): Promise<void> => {
  for (let turn = 0; turn < 50; turn += 1) await Promise.resolve();
};

describe('job', () => {
  it('runs through all states by itself and leaves', async () => {
    const { job, trace } = stage({ run: () => Promise.resolve() });
    job.start();
    await job.ended;
    expect(trace).toEqual([
      'created', 'running', 'waiting', 'pending', 'BLOCK_JOB_COMPLETED', 'concluded', 'null',
    ]);
  });

  it('waits in pending for its user, and in concluded for its dismissal', async () => {
    const { job, trace } = stage(
      { run: () => Promise.resolve() },
      { autoFinalize: false, autoDismiss: false },
    );
    job.start();
    await turns();
    expect(trace.slice(-2)).toEqual(['pending', 'BLOCK_JOB_PENDING']);
    await job.finalize();
    expect(trace.slice(-2)).toEqual(['BLOCK_JOB_COMPLETED', 'concluded']);
    expect(job.info()).toMatchObject({ status: 'concluded' });
    await job.dismiss();
    expect(trace.at(-1)).toBe('null');
  });

  it('fails with its error when the work fails', async () => {
    const { job, trace } = stage({
      run: () => Promise.reject(new BlockError('io', 'Input/output error')),
    });
    job.start();
    await job.ended;
    expect(trace).toEqual([
      'created', 'running', 'aborting', 'BLOCK_JOB_COMPLETED Input/output error', 'concluded',
      'null',
    ]);
  });

  it('fails when prepare fails, after pending', async () => {
    const { job, trace } = stage({
      run: () => Promise.resolve(),
      prepare: () => Promise.reject(new BlockError('io', 'no header')),
    });
    job.start();
    await job.ended;
    expect(trace.slice(3)).toEqual([
      'pending', 'aborting', 'BLOCK_JOB_COMPLETED no header', 'concluded', 'null',
    ]);
  });

  it('a sleeping job pauses, resumes and cancels before the verb returns', async () => {
    const { job, trace } = stage(new Sleeper());
    job.start();
    await turns();
    job.pause();
    expect(trace.at(-1)).toBe('paused');
    expect(() => job.pause()).toThrow('Job is already paused');
    job.resume();
    expect(trace.at(-1)).toBe('running');
    expect(() => job.resume()).toThrow("Can't resume a job that was not paused");
    await turns();
    await job.cancel();
    await job.ended;
    expect(trace.slice(-4)).toEqual(['aborting', 'BLOCK_JOB_CANCELLED', 'concluded', 'null']);
    expect(job.info().error).toBe('Operation canceled');
  });

  it('cancelling a paused job resumes it first', async () => {
    const { job, trace } = stage(new Sleeper());
    job.start();
    await turns();
    job.pause();
    await expect(job.cancelBlock(false)).rejects.toThrow(
      "The block job for device 'j0' is currently paused",
    );
    await job.cancel();
    await job.ended;
    expect(trace.slice(2)).toEqual([
      'paused', 'running', 'aborting', 'BLOCK_JOB_CANCELLED', 'concluded', 'null',
    ]);
  });

  it('has ended when its cancel is answered, unless its work lingers', async () => {
    for (const lingers of [false, true]) {
      const sleeper = new Sleeper();
      const { job, trace } = stage({ lingers, run: (running) => sleeper.run(running) });
      job.start();
      await turns();
      await job.cancel();
      expect(trace.at(-1)).toBe(lingers ? 'running' : 'null');
      await job.ended;
      expect(trace.at(-1)).toBe('null');
    }
  });

  it('cancelled before its start it sends no block job event and leaves at once', async () => {
    const { job, trace } = stage(new Sleeper(), { autoDismiss: false });
    await job.cancel();
    await job.ended;
    expect(trace).toEqual(['created', 'aborting', 'concluded', 'null']);
  });

  it('cancelled in pending it is undone', async () => {
    let undone = 0;
    const { job, trace } = stage(
      { run: () => Promise.resolve(), abort: () => void (undone += 1) },
      { autoFinalize: false },
    );
    job.start();
    await turns();
    await job.cancel();
    await job.ended;
    expect(undone).toBe(1);
    expect(trace.slice(-4)).toEqual(['aborting', 'BLOCK_JOB_CANCELLED', 'concluded', 'null']);
  });

  it('a cancel during the finalization comes too late', async () => {
    let finish = (): void => undefined;
    const { job, trace } = stage({
      run: () => Promise.resolve(),
      prepare: () => new Promise((resolve) => (finish = resolve)),
    });
    job.start();
    await turns();
    await job.cancel();
    finish();
    await job.ended;
    expect(trace).toContain('BLOCK_JOB_COMPLETED');
    expect(trace).not.toContain('aborting');
  });

  it('a new speed wakes a sleeping job, a negative one is refused', async () => {
    let wakes = 0;
    const { job } = stage({
      async run(running) {
        for (;;) {
          await running.sleep(1_000_000);
          wakes += 1;
        }
      },
    });
    job.start();
    await turns();
    job.setSpeed(4096);
    await turns();
    expect(wakes).toBe(1);
    expect(() => job.setSpeed(-1)).toThrow("Parameter 'speed' expects a non-negative value");
    expect(job.blockInfo()).toMatchObject({ speed: 4096, status: 'running', busy: false });
  });

  it('a drained section shows as a pause; the pause of the user outlasts it', async () => {
    const { job, trace } = stage(new Sleeper());
    job.start();
    await turns();
    job.quiesce();
    job.pause();
    job.unquiesce();
    expect(trace.slice(2)).toEqual(['paused']);
    job.resume();
    expect(trace.slice(2)).toEqual(['paused', 'running']);
  });

  it('stopping on an error pauses as the user would, resuming resets io-status', async () => {
    let failures = 1;
    const { job, trace } = stage({
      async run(running) {
        while (failures > 0) {
          const error = new BlockError('no-space', 'No space left on device');
          expect(running.decideOnError('enospc', 'write', error)).toBe('stop');
          await running.pausePoint();
        }
      },
    });
    job.start();
    await turns();
    expect(trace.slice(2)).toEqual(['BLOCK_JOB_ERROR', 'paused']);
    expect(job.blockInfo()).toMatchObject({ 'io-status': 'nospace', paused: true });
    failures = 0;
    job.resume();
    expect(job.blockInfo()['io-status']).toBe('ok');
    await job.ended;
    expect(trace).toContain('BLOCK_JOB_COMPLETED');
  });
});

describe('job transaction', () => {
  it('members become pending together', async () => {
    const transaction = new JobTransaction();
    const trace: string[] = [];
    const sleeper = new Sleeper();
    const first = stage({ run: () => Promise.resolve() }, { id: 'a', transaction, trace });
    const second = stage(sleeper, { id: 'b', transaction, trace });
    first.job.start();
    second.job.start();
    await turns();
    expect(first.job.status).toBe('waiting');
    sleeper.done = true;
    second.job.wake();
    await second.job.ended;
    await first.job.ended;
    expect(trace.filter((entry) => entry === 'BLOCK_JOB_COMPLETED')).toHaveLength(2);
    expect(trace.indexOf('pending')).toBeGreaterThan(trace.lastIndexOf('waiting'));
  });

  it('the failure of one cancels the others', async () => {
    const transaction = new JobTransaction();
    const trace: string[] = [];
    const sleeping = stage(new Sleeper(), { id: 'b', transaction, trace });
    const failing = stage(
      { run: () => Promise.reject(new BlockError('io', 'bad')) },
      { id: 'a', transaction, trace },
    );
    sleeping.job.start();
    failing.job.start();
    await sleeping.job.ended;
    await failing.job.ended;
    expect(trace.filter((entry) => entry === 'aborting')).toHaveLength(2);
    expect(trace).toContain('BLOCK_JOB_COMPLETED bad');
    expect(trace).toContain('BLOCK_JOB_CANCELLED');
  });

  it('a waiting member is undone when another is cancelled', async () => {
    const transaction = new JobTransaction();
    const trace: string[] = [];
    const done = stage({ run: () => Promise.resolve() }, { id: 'a', transaction, trace });
    const running = stage(new Sleeper(), { id: 'b', transaction, trace });
    done.job.start();
    running.job.start();
    await turns();
    await running.job.cancel();
    await Promise.all([running.job.ended, done.job.ended]);
    expect(done.job.status).toBe('null');
    expect(trace.filter((entry) => entry === 'BLOCK_JOB_CANCELLED')).toHaveLength(2);
  });
});
