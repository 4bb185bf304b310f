// SPDX-License-Identifier: Apache-2.0
// One background job: its status, its verbs, its pause points and the events it sends.
//
// The work itself is a JobWork. It yields at pausePoint(), sleep() and rest() only: there the job
// is "parked", and a pause, a resume or a cancel takes effect at once, before the verb returns; a
// job with batches in flight reacts at its next pause point. Ending belongs to the transaction
// (job-transaction.ts): run → waiting → pending → prepare → commit or abort → clean → concluded.

import { assert, BlockError, errnoText } from '../base/index.js';
import { yieldToLoop } from '../block/copy/index.js';
import { JobStanding } from './job-standing.js';
import { requireVerb, VERBS } from './job-states.js';
import type { JobStatus, JobType } from './job-states.js';
import { JobReport } from './job-report.js';
import { JobTransaction } from './job-transaction.js';
import { changeRefused } from './job-work.js';
import type {
  BlockJobInfo,
  JobChanges,
  JobInfo,
  JobSetup,
  JobSurroundings,
  JobWork,
} from './job-work.js';
import type { OnError } from './options.js';
import { Parking } from './parking.js';

export class Job {
  readonly id: string;
  readonly type: JobType;
  readonly blockJob: boolean;
  readonly autoFinalize: boolean;
  readonly autoDismiss: boolean;
  readonly transaction: JobTransaction;
  readonly #surroundings: JobSurroundings;
  #work: JobWork | null = null;
  readonly #standing: JobStanding;
  #cancelRequested = false;
  /** Cancelled without force when READY: it ends well, and takes no `complete` any more. */
  #finishing = false;
  readonly #parking: Parking;
  readonly #report: JobReport;
  #started = false;
  /** It holds its nodes drained itself, and works on under that. */
  standsStill = false;
  #ended: (() => void) | null = null;
  #hasAborted: (() => void) | null = null;
  /** Resolves once the job is concluded (or was thrown away before it started). */
  readonly ended: Promise<void>;

  constructor(setup: JobSetup, surroundings: JobSurroundings) {
    this.id = setup.id;
    this.type = setup.type;
    this.blockJob = setup.blockJob;
    this.autoFinalize = setup.autoFinalize;
    this.autoDismiss = setup.autoDismiss;
    this.transaction = setup.transaction ?? new JobTransaction();
    this.#parking = new Parking(setup.id);
    this.#report = new JobReport(this);
    this.transaction.add(this);
    this.#surroundings = surroundings;
    const { id } = setup;
    this.#standing = new JobStanding((status) => {
      surroundings.emit({ name: 'JOB_STATUS_CHANGE', data: { id, status } });
    });
    this.ended = new Promise((resolve) => {
      this.#ended = resolve;
    });
    this.aborted = new Promise((resolve) => {
      this.#hasAborted = resolve;
    });
    this.#standing.become('created');
  }

  get status(): JobStatus {
    return this.#standing.status;
  }

  get speed(): number {
    return this.#report.speed;
  }

  get cancelled(): boolean {
    return this.#cancelRequested;
  }

  get failed(): boolean {
    return this.#report.error !== null;
  }

  /** READY was reached: the job may be told to complete. */
  get ready(): boolean {
    return this.#standing.isReady;
  }

  /** It runs its work, which is not parked. */
  get working(): boolean {
    return ['running', 'ready'].includes(this.status) && !this.#parking.taken;
  }

  /** It runs none of its work, or only what drained nodes of its own need. */
  get atRest(): boolean {
    return !this.working || this.standsStill;
  }

  get pauseRequested(): boolean {
    return this.#standing.isPauseAsked;
  }

  // ---- What the work calls

  /** Bytes (or steps) done so far; never goes back. */
  progressTo(done: number): void {
    this.#report.progress = Math.max(this.#report.progress, done);
  }

  advance(amount: number): void {
    this.#report.progress += amount;
  }

  get progress(): number {
    return this.#report.progress;
  }

  setTotal(total: number): void {
    this.#report.total = total;
  }

  /** Stays here while the job is paused; throws kind `cancelled` once it is cancelled. */
  async pausePoint(): Promise<void> {
    while (this.pauseRequested && !this.#cancelRequested) {
      this.#standing.showPause();
      await this.#parking.park();
    }
    this.#standing.leavePause();
    this.#requireNotCancelled();
  }

  /** Waits `ms` milliseconds at most; pause, resume, cancel and a new speed end it early. */
  async sleep(ms: number): Promise<void> {
    if (this.#cancelRequested || this.pauseRequested) return this.pausePoint();
    await this.#parking.park((wake) => this.#surroundings.clock.after(ms, wake));
    return this.pausePoint();
  }

  /** Waits until someone wakes the job (`wake`), pauses or cancels it. */
  async rest(): Promise<void> {
    if (this.#cancelRequested || this.pauseRequested) return this.pausePoint();
    await this.#parking.park();
    return this.pausePoint();
  }

  wake(): void {
    this.#parking.wake();
  }

  /**
   * Applies an error policy to a failed read (source) or write (target) and says what follows.
   * `stop` has paused the job as its user would; it goes on after a resume.
   */
  decideOnError(
    policy: OnError,
    operation: 'read' | 'write',
    error: BlockError,
  ): 'report' | 'ignore' | 'stop' {
    const noSpace = error.errno === 'ENOSPC';
    const action =
      policy === 'enospc' || policy === 'auto' ? (noSpace ? 'stop' : 'report') : policy;
    this.#surroundings.emit({
      name: 'BLOCK_JOB_ERROR',
      data: { device: this.id, operation, action },
    });
    if (action === 'stop') {
      this.#standing.pauseByUser();
      if (this.#report.ioStatus === 'ok') this.#report.ioStatus = noSpace ? 'nospace' : 'failed';
    }
    return action;
  }

  /** All is copied: from now on the job may be told to complete. */
  becomeReady(): void {
    this.#standing.become('ready');
    this.#surroundings.emit({ name: 'BLOCK_JOB_READY', data: this.#report.endFacts() });
  }

  // ---- What the starter calls

  attachWork(work: JobWork): void {
    assert(this.#work === null, `job ${this.id} has its work already`);
    this.#work = work;
  }

  start(): void {
    assert(this.#work !== null, `job ${this.id} has no work`);
    this.#standing.become('running');
    void this.#runWork(this.#work);
  }

  /**
   * Resolves when the job rests: it is parked, waits for its user or for others of its transaction
   * to come to its end, or is over.
   */
  async restsOrEnds(): Promise<void> {
    while (!this.#rests) await this.#parking.nextRest();
  }

  get #rests(): boolean {
    const isOver = this.status === 'concluded' || this.status === 'null';
    const isDone = this.status === 'waiting' || this.status === 'pending';
    return this.#parking.taken || isOver || (isDone && !this.transaction.ending);
  }

  /** Throws a job away that was created and could not be started. */
  discard(): void {
    this.transaction.remove(this);
    this.#standing.become('null');
    this.#surroundings.forget(this);
    this.#ended?.();
  }

  /** A drained section begins around the job; nests with the user's pause. */
  quiesce(): void {
    this.#standing.hold();
    if (!this.#parking.taken) return;
    if (this.#cancelRequested) this.wake();
    else this.#standing.showPause();
  }

  unquiesce(): void {
    this.#standing.release();
    this.#goOn();
  }

  // ---- Verbs of the user

  pause(): void {
    requireVerb(this.id, this.status, 'pause');
    if (this.#standing.isPausedByUser) {
      throw new BlockError('invalid-state', 'Job is already paused');
    }
    this.#standing.pauseByUser();
    if (this.#parking.taken) this.#standing.showPause();
  }

  resume(): void {
    if (!this.#standing.isPausedByUser) {
      throw new BlockError('invalid-state', "Can't resume a job that was not paused");
    }
    requireVerb(this.id, this.status, 'resume');
    this.#standing.resumeByUser();
    this.#report.ioStatus = 'ok';
    this.#goOn();
  }

  /**
   * Asks the job to end. A job at rest has ended when the promise resolves, with all of its
   * transaction, unless its work lingers; one with work in flight ends at its next pause point,
   * and the promise does not wait for it (`ended` tells of it).
   */
  async cancel(): Promise<void> {
    requireVerb(this.id, this.status, 'cancel');
    if (this.transaction.ending) return;
    this.#markCancelled();
    if (!this.#standing.mayRun) {
      this.fail(cancelledError());
      await this.transaction.settleFailure();
    } else if (this.#parking.taken) {
      this.wake();
      if (this.#work?.lingers === true) return;
      await this.ended;
      await this.transaction.over();
    }
  }

  /**
   * The same for a job that copies nothing and is at work, at any time: it only learns of it. False
   * for others, left as they are.
   */
  cancelAtWork(): boolean {
    if (this.blockJob || !this.working || this.transaction.ending) return false;
    this.#markCancelled();
    return true;
  }

  /** `block-job-cancel`: without `force` a job that its user paused refuses. */
  async cancelBlock(force: boolean): Promise<void> {
    if (this.#standing.isPausedByUser && !force) {
      throw new BlockError(
        'invalid-state',
        `The block job for device '${this.id}' is currently paused`,
      );
    }
    if (!force && this.ready && this.#work?.finish !== undefined) {
      this.#finishing = true;
      this.#work.finish();
      this.wake();
      return;
    }
    await this.cancel();
  }

  /** For the end of the program: cancels what can still be cancelled. */
  async cancelForExit(): Promise<void> {
    if (VERBS.cancel.includes(this.status)) await this.cancel();
  }

  complete(): void {
    requireVerb(this.id, this.status, 'complete');
    const asked = this.#cancelRequested || this.#finishing;
    if (!asked && this.#work?.complete !== undefined) {
      this.#work.complete();
      this.wake();
      return;
    }
    throw new BlockError(
      'invalid-state',
      `The active block job '${this.id}' cannot be completed`,
    );
  }

  /** Resolves when every job of the transaction is concluded. */
  async finalize(): Promise<void> {
    requireVerb(this.id, this.status, 'finalize');
    await this.transaction.finalize();
  }

  /** Resolves when everything the job still had is let go of. */
  async dismiss(): Promise<void> {
    requireVerb(this.id, this.status, 'dismiss');
    const released = this.#work?.dismiss?.();
    this.#standing.become('null');
    this.#surroundings.forget(this);
    await released;
  }

  /** Bytes per second, 0 = unlimited. */
  setSpeed(bytesPerSecond: number | bigint): void {
    requireVerb(this.id, this.status, 'set-speed');
    if (bytesPerSecond < 0) {
      throw new BlockError('invalid-option', "Parameter 'speed' expects a non-negative value");
    }
    this.#report.speed = Number(bytesPerSecond);
    this.#work?.setSpeed?.(this.#report.speed);
    if (!this.pauseRequested) this.wake();
  }

  change(changes: JobChanges): void {
    requireVerb(this.id, this.status, 'change');
    if (this.#work?.change === undefined) throw changeRefused();
    if (changes.type !== this.type) {
      const text = `Job '${this.id}' is of type '${this.type}', not '${changes.type}'`;
      throw new BlockError('invalid-option', text);
    }
    this.#work.change(changes);
  }

  info(): JobInfo {
    return this.#report.info();
  }

  blockInfo(): BlockJobInfo {
    return this.#report.blockInfo(this.#work?.activelySynced?.() ?? false);
  }

  // ---- What the transaction calls

  /** Resolves once the job is ABORTING. */
  readonly aborted: Promise<void>;

  /** Another member failed: this one cannot succeed any more. */
  cancelWithOthers(): void {
    this.#markCancelled();
  }

  /** Its turn to end: now, or at its next pause point. */
  abortWithOthers(): void {
    if (this.#standing.mayRun) this.wake();
    else this.fail(cancelledError());
  }

  becomeWaiting(): void {
    this.#standing.become('waiting');
    this.#parking.tellRest();
  }

  becomePending(): void {
    this.#standing.become('pending');
    if (this.blockJob && !this.autoFinalize) {
      this.#surroundings.emit({
        name: 'BLOCK_JOB_PENDING',
        data: { type: this.type, id: this.id },
      });
    }
    this.#parking.tellRest();
  }

  /** Becomes ABORTING with its first error. */
  fail(error: unknown): void {
    this.#report.error ??= this.#cancelRequested ? errnoText('ECANCELED') : messageOf(error);
    if (this.status === 'aborting') return;
    this.#standing.become('aborting');
    this.#hasAborted?.();
  }

  async prepare(): Promise<void> {
    await this.#work?.prepare?.();
  }

  /** Commits or aborts, cleans up, tells the world and dismisses itself when it may. */
  async conclude(): Promise<void> {
    const neverStarted = !this.#started;
    const leaves = this.autoDismiss || neverStarted;
    if (this.#report.error === null) this.#work?.commit?.();
    else this.#work?.abort?.();
    try {
      await this.#work?.clean?.();
      if (leaves) await this.#work?.dismiss?.();
    } catch (error) {
      // Too late to fail a committed change; an assertion still surfaces.
      if (!(error instanceof BlockError)) throw error;
    }
    if (this.blockJob && !neverStarted) this.#emitEnd();
    this.#standing.become('concluded');
    if (leaves) {
      this.#standing.become('null');
      this.#surroundings.forget(this);
    }
    this.#ended?.();
    this.#parking.tellRest();
  }

  async #runWork(work: JobWork): Promise<void> {
    this.#started = true;
    try {
      await work.run(this);
      this.#requireNotCancelled();
    } catch (error) {
      if (!(error instanceof BlockError)) throw error;
      this.#standing.leavePause();
      // Who cancels it is answered first.
      if (work.lingers === true && this.#cancelRequested) await yieldToLoop();
      this.fail(error);
      await this.transaction.settleFailure();
      return;
    }
    await this.transaction.jobDone(this);
  }

  #emitEnd(): void {
    const cancelled = this.#cancelRequested;
    this.#surroundings.emit({
      name: cancelled ? 'BLOCK_JOB_CANCELLED' : 'BLOCK_JOB_COMPLETED',
      data: {
        ...this.#report.endFacts(),
        ...(this.#report.error === null || cancelled ? {} : { error: this.#report.error }),
      },
    });
  }

  #goOn(): void {
    if (this.pauseRequested) return;
    this.#standing.leavePause();
    this.wake();
  }

  #markCancelled(): void {
    if (!this.#cancelRequested) this.#work?.cancelled?.();
    this.#cancelRequested = true;
    if (!this.#standing.resumeByUser()) return;
    this.#report.ioStatus = 'ok';
    this.#standing.leavePause();
  }

  #requireNotCancelled(): void {
    if (this.#cancelRequested) throw cancelledError();
  }
}

function cancelledError(): BlockError {
  return new BlockError('cancelled', errnoText('ECANCELED'));
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
