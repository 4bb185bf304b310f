// SPDX-License-Identifier: Apache-2.0
// The loop that copying jobs share: pause points, speed, a bounded window of batches, and the error
// policy of each side.
//
// A batch is charged when it is dispatched. Nothing is in flight when the job pauses, sleeps, ends
// or fails; a failed range goes back to whoever gave it, before the policy is asked.

import { BlockError, COPY_LIMITS, errnoText, InFlight, toBlockError } from '../base/index.js';
import type { Clock, Eventually } from '../base/index.js';
import type { Backend, Node } from '../block/index.js';
import { batchBytes, RateLimiter, yieldToLoop } from '../block/copy/index.js';
import type { CopyFailure } from '../block/copy/index.js';
import type { Job } from './job.js';
import type { OnError } from './options.js';

export interface CopyWork {
  /** Bytes charged to the speed limit; 0 for what costs nothing, such as zeroes. */
  readonly cost: number;
  run(): Promise<CopyFailure | null>;
  /** The batch is over: progress, or the range becomes due again. */
  over(failure: CopyFailure | null): void;
}

/** Nothing can be dispatched before this has happened. */
export interface Hold {
  readonly until: Promise<void>;
}

export interface CopyLoopOptions {
  readonly clock: Clock;
  /** Counts the batches, so that drain waits for them and holds back new ones. */
  readonly backend: Backend;
  /** Bytes of one copy unit, the least that is dispatched. */
  readonly unit: number;
  /** Batches in flight at most. */
  readonly window: number;
  /** Upper bound of a batch in bytes. */
  readonly maxBatch: number;
  readonly onSourceError: OnError;
  readonly onTargetError: OnError;
  /** What failed and was ignored stays due and is tried again; otherwise it fails the job. */
  readonly retryIgnored?: boolean;
  /** The next batch of at most `limit` bytes, its range claimed; null when nothing is due. */
  next(limit: number): Eventually<CopyWork | Hold | null>;
}

export class CopyLoop {
  readonly #limiter: RateLimiter;
  readonly #options: CopyLoopOptions;
  readonly #inFlight = new InFlight();
  #fatal: CopyFailure | null = null;
  /** The first failure that a policy ignored: the job goes on and fails at its end. */
  #ignored: CopyFailure | null = null;
  /** Something failed and is tried again: not at once. */
  #breather = false;
  /** A policy has decided; what else fails before the next dispatch is tried again unjudged. */
  #decided = false;

  constructor(options: CopyLoopOptions) {
    this.#options = options;
    this.#limiter = new RateLimiter(options.clock);
  }

  setSpeed(bytesPerSecond: number): void {
    this.#limiter.setSpeed(bytesPerSecond);
  }

  /** Resolves when next() has nothing left; throws for a failure, a cancel included. */
  async run(job: Job): Promise<void> {
    try {
      while (await this.#step(job));
    } finally {
      await this.#inFlight.allEnd();
    }
    const failure = this.#fatal ?? this.#ignored;
    if (failure !== null) throw asJobError(failure.error);
  }

  /** A failure outside of a batch, judged by the policy of its side; the next run() acts on it. */
  report(job: Job, failure: CopyFailure): void {
    this.#judge(job, failure);
  }

  async #step(job: Job): Promise<boolean> {
    const { window, unit, maxBatch } = this.#options;
    if (this.#fatal !== null) return false;
    if (this.#decided) {
      await this.#inFlight.allEnd();
      this.#decided = false;
    }
    if (job.pauseRequested || job.cancelled) {
      await this.#inFlight.allEnd();
      await job.pausePoint();
      return true;
    }
    if (this.#inFlight.size >= Math.min(window, COPY_LIMITS.batchesPerJob)) {
      await this.#inFlight.oneEnds();
      return true;
    }
    const delay = this.#breather ? COPY_LIMITS.sliceMs : this.#limiter.delayMs();
    this.#breather = false;
    if (delay > 0) {
      await this.#inFlight.allEnd();
      if (this.#fatal === null) await job.sleep(delay);
      return true;
    }
    return this.#dispatch(job, batchBytes(unit, this.#limiter.sliceBytes, maxBatch));
  }

  async #dispatch(job: Job, limit: number): Promise<boolean> {
    const leave = await this.#options.backend.enter();
    let entered = true;
    try {
      if (job.pauseRequested || job.cancelled) return true;
      const work = await this.#nextWork(job, limit);
      if (work === 'failed') return true;
      if (work === null) {
        if (this.#inFlight.size === 0) return false;
        await this.#inFlight.oneEnds();
        return true;
      }
      if (!('run' in work)) {
        await work.until;
        return true;
      }
      this.#limiter.charge(work.cost);
      entered = false;
      this.#start(job, work, leave);
    } finally {
      if (entered) leave();
    }
    await yieldToLoop();
    return true;
  }

  /** What cannot be found out about the source is a failure to read it. */
  async #nextWork(job: Job, limit: number): Promise<CopyWork | Hold | 'failed' | null> {
    try {
      return await this.#options.next(limit);
    } catch (error) {
      if (!(error instanceof BlockError)) throw error;
      const failure: CopyFailure = { side: 'source', error };
      this.#judge(job, failure);
      // Nobody knows what to skip.
      if (this.#options.retryIgnored !== true && this.#ignored === failure) this.#fatal ??= failure;
      return 'failed';
    }
  }

  #start(job: Job, work: CopyWork, leave: () => void): void {
    this.#inFlight.add(this.#runOne(job, work).finally(leave));
  }

  async #runOne(job: Job, work: CopyWork): Promise<void> {
    const failure = await work.run();
    work.over(failure);
    if (failure !== null) this.#judge(job, failure);
  }

  #judge(job: Job, failure: CopyFailure): void {
    if (failure.error.kind === 'cancelled' || this.#fatal !== null || this.#decided) return;
    const source = failure.side === 'source';
    const policy = source ? this.#options.onSourceError : this.#options.onTargetError;
    const action = job.decideOnError(policy, source ? 'read' : 'write', failure.error);
    const retries = this.#options.retryIgnored === true;
    this.#decided = action === 'stop' || (action === 'ignore' && retries);
    if (action === 'report') this.#fatal = failure;
    else if (action === 'ignore' && retries) this.#breather = true;
    else if (action === 'ignore') this.#ignored ??= failure;
  }
}

/** Makes the target of a job as long as its source. */
export async function lengthen(target: Node, length: number): Promise<void> {
  if (target.length >= length) return;
  try {
    await target.truncate(length);
  } catch (error) {
    throw asJobError(toBlockError(error));
  }
}

/** Jobs fail with the plain text of an errno, wherever the error came from. */
function asJobError(error: BlockError): BlockError {
  return new BlockError(error.kind, errnoText(error.errno), {
    ...error.context,
    errno: error.errno,
    cause: error,
  });
}
