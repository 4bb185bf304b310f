// SPDX-License-Identifier: Apache-2.0
// One job as a client follows it: from events, so that a job which ends and is dismissed between
// two looks is not missed.
//
// A handle watches from its creation until the job is gone. `client.start()` makes one before it
// sends the command; `client.job(id)` is for jobs that run already and for those of a transaction.
// `done` settles exactly once and never leaves an unhandled rejection. A signal ends waiting and
// leaves the job alone, unless `cancelOnAbort` asks for more.

import type { CommandResult } from '../api/index.js';
import { BlockError, QMP_LIMITS } from '../base/index.js';
import type { QmpEvent } from './event-stream.js';
import { JobError, outcomeOf } from './job-outcome.js';
import type { BlockEnd, JobIoError, JobOutcome, JobRequest, JobState } from './job-outcome.js';
import { JobWaiters } from './job-waiters.js';
import { abortable } from './runner.js';
import type { CommandRunner, WaitOptions } from './runner.js';

export class JobHandle implements AsyncDisposable, AsyncIterable<JobState> {
  readonly id: string;
  /**
   * Resolves once the job is concluded, well or not; rejects (kind `closed`) when the connection
   * is lost before, or the handle is closed.
   */
  readonly done: Promise<JobOutcome>;
  readonly #client: CommandRunner;
  readonly #stops: (() => void)[] = [];
  readonly #waiters = new JobWaiters();
  readonly #history: JobState[] = [];
  /** States that were taken off the front of the history. */
  #dropped = 0;
  #settle: { resolve(outcome: JobOutcome): void; reject(error: unknown): void } | null = null;
  #blockEnd: BlockEnd | null = null;
  #request: JobRequest | null = null;
  #lastError: JobIoError | null = null;
  #stopError: JobIoError | null = null;
  #wasReady = false;
  #isConcluding = false;
  /** What is seen is of this job, not the last of an earlier one with its id. */
  #isBorn: boolean;

  /** `look`: the job may be there already, so that query-jobs is asked for it. */
  constructor(client: CommandRunner, id: string, options: { readonly look: boolean }) {
    this.id = id;
    this.#client = client;
    this.done = new Promise((resolve, reject) => {
      this.#settle = { resolve, reject };
    });
    this.done.catch(() => undefined);
    this.#stops.push(client.onEvent((event) => this.#see(event)));
    this.#stops.push(client.onLost((error) => this.#lost(error)));
    this.#isBorn = options.look;
    if (options.look) this.#look();
  }

  /** The last status seen; null before the first. */
  get status(): JobState | null {
    return this.#history.at(-1) ?? null;
  }

  /** Every status seen, in order; of very many only the latest. */
  get history(): readonly JobState[] {
    return this.#history;
  }

  /** The last I/O error of the job, whatever its policy made of it. */
  get lastError(): JobIoError | null {
    return this.#lastError;
  }

  /** `done`, given up early when the signal says so; throws JobError unless the job completed. */
  async completed(
    options: WaitOptions & { readonly cancelOnAbort?: boolean } = {},
  ): Promise<JobOutcome> {
    const { signal } = options;
    let outcome: JobOutcome;
    try {
      outcome = await abortable(this.done, signal);
    } catch (error) {
      // A refusal means that the job ended meanwhile; a lost connection is told by `done`.
      if (options.cancelOnAbort === true && signal?.aborted === true) {
        await this.cancel().catch(() => undefined);
      }
      throw error;
    }
    if (outcome.result !== 'completed') throw new JobError(outcome);
    return outcome;
  }

  /**
   * Resolves when the job is in one of the states, now or later; rejects with JobError when it
   * ends first.
   */
  reach(states: readonly JobState[], options: WaitOptions = {}): Promise<JobState> {
    const { status } = this;
    if (status !== null && states.includes(status)) return Promise.resolve(status);
    return this.#waiters.wait(
      (seen) => (seen.status !== null && states.includes(seen.status) ? seen.status : null),
      { what: states.join(' or '), afterEnd: states.includes('null'), ...options },
    );
  }

  /** Resolves once the job has become READY, so that it can be told to complete. */
  async ready(options: WaitOptions = {}): Promise<void> {
    if (this.#wasReady) return;
    await this.reach(['ready', 'standby'], options);
  }

  /** Resolves when the policy `stop` holds the job after an I/O error; resume() lets it go on. */
  async stopped(options: WaitOptions = {}): Promise<JobIoError> {
    if (this.#stopError !== null) return this.#stopError;
    return this.#waiters.wait((seen) => seen.stopError, { what: 'stopped', ...options });
  }

  /** The states from the first one seen, ending after `concluded` (or `null` without one). */
  [Symbol.asyncIterator](): AsyncIterator<JobState, undefined> {
    return this.states();
  }

  async *states(options: WaitOptions = {}): AsyncGenerator<JobState, undefined> {
    let position = 0;
    for (;;) {
      while (position < this.#dropped + this.#history.length) {
        const status = this.#history[position - this.#dropped];
        if (status === undefined) throw new BlockError('busy', 'Too many states were left unread');
        position += 1;
        yield status;
        if (isEnd(status)) return undefined;
      }
      const last = position;
      await this.#waiters.wait(
        () => (this.#dropped + this.#history.length > last ? true : null),
        { what: 'in its next state', afterEnd: true, ...options },
      );
    }
  }

  pause(options?: WaitOptions): Promise<unknown> {
    return this.#client.execute('job-pause', { id: this.id }, options);
  }
  /** After a stop by error policy too: the failed part is tried again. */
  resume(options?: WaitOptions): Promise<unknown> {
    return this.#client.execute('job-resume', { id: this.id }, options);
  }

  /**
   * Ends the job as soon as it can be; `done` gives `cancelled`. A READY mirror is ended like any
   * other: its target is not a copy to rely on. For that there is finishWithoutPivot().
   */
  async cancel(options?: WaitOptions): Promise<void> {
    await this.#ask('cancel', this.#client.execute('job-cancel', { id: this.id }, options));
  }

  /**
   * Ends a READY mirror in good order with the graph as it is: the target is then a copy of this
   * moment, and `done` gives `completed` with the request `finish`. Refused here before READY,
   * when the server would throw the work away.
   */
  async finishWithoutPivot(options?: WaitOptions): Promise<void> {
    if (!this.#wasReady) {
      throw new BlockError('invalid-state', `Job '${this.id}' is not ready to finish`);
    }
    const sent = this.#client.execute('block-job-cancel', { device: this.id }, options);
    await this.#ask('finish', sent);
  }

  /** Asks a READY job to come to its end: a mirror or active commit pivots to its target. */
  async complete(options?: WaitOptions): Promise<void> {
    await this.#ask('complete', this.#client.execute('job-complete', { id: this.id }, options));
  }
  /** Lets a PENDING job (and its transaction) make its last changes. */
  finalize(options?: WaitOptions): Promise<unknown> {
    return this.#client.execute('job-finalize', { id: this.id }, options);
  }
  /** Removes a CONCLUDED job that does not dismiss itself. */
  dismiss(options?: WaitOptions): Promise<unknown> {
    return this.#client.execute('job-dismiss', { id: this.id }, options);
  }
  /** 0 means no limit. */
  setSpeed(bytesPerSecond: number, options?: WaitOptions): Promise<unknown> {
    const args = { device: this.id, speed: bytesPerSecond };
    return this.#client.execute('block-job-set-speed', args, options);
  }

  /** As query-jobs shows it; null when the server does not know it (any more). */
  async info(options?: WaitOptions): Promise<CommandResult<'query-jobs'>[number] | null> {
    const jobs = await this.#client.execute('query-jobs', {}, options);
    return jobs.find((job) => job.id === this.id) ?? null;
  }

  /** As query-block-jobs shows it, `io-status` included; null for jobs that are no block jobs. */
  async blockInfo(
    options?: WaitOptions,
  ): Promise<CommandResult<'query-block-jobs'>[number] | null> {
    const jobs = await this.#client.execute('query-block-jobs', {}, options);
    return jobs.find((job) => job.device === this.id) ?? null;
  }

  /** Stops watching and leaves the job alone; `done` rejects unless it was settled. */
  close(): void {
    this.#lost(new BlockError('closed', 'its handle was closed'));
  }

  /** Cancels the job if it is still there, waits for its end, and dismisses it. */
  async [Symbol.asyncDispose](): Promise<void> {
    try {
      await this.#putAway();
    } catch {
      // The connection is gone, or someone else was faster: there is nothing left to put away.
    } finally {
      this.close();
    }
  }

  async #putAway(): Promise<void> {
    if (this.#settle !== null) {
      await this.cancel().catch(() => undefined);
      if ((await this.info()) === null && this.status === null) return;
      await this.done;
    }
    if (this.status === 'concluded' && (await this.info()) !== null) await this.dismiss();
  }

  async #ask(request: JobRequest, sent: Promise<unknown>): Promise<void> {
    // The end may be told before the answer is.
    const former = this.#request;
    this.#request = request;
    try {
      await sent;
    } catch (error) {
      if (this.#request === request) this.#request = former;
      throw error;
    }
  }

  #look(): void {
    this.info().then(
      (info) => {
        if (info !== null && this.#history.length === 0) this.#reached(info.status);
      },
      (error: unknown) => this.#fail(error),
    );
  }

  #see(event: QmpEvent): void {
    if (!this.#isBorn && !isBirth(event, this.id)) return;
    this.#isBorn = true;
    switch (event.event) {
      case 'JOB_STATUS_CHANGE':
        if (event.data.id === this.id) this.#reached(event.data.status);
        return;
      case 'BLOCK_JOB_COMPLETED':
        if (event.data.device === this.id) {
          this.#blockEnd = { cancelled: false, error: event.data.error ?? null };
        }
        return;
      case 'BLOCK_JOB_CANCELLED':
        if (event.data.device === this.id) this.#blockEnd = { cancelled: true, error: null };
        return;
      case 'BLOCK_JOB_ERROR':
        if (event.data.device === this.id) this.#metError(event.data);
        return;
      default:
    }
  }

  #metError(error: JobIoError): void {
    this.#lastError = error;
    if (error.action !== 'stop') return;
    this.#stopError = error;
    this.#waiters.tell({ status: this.status, stopError: error });
  }

  #reached(status: JobState): void {
    if (status === 'created') this.#blockEnd = null;
    if (status === 'ready' || status === 'standby') this.#wasReady = true;
    if (status === 'running' || status === 'ready') this.#stopError = null;
    this.#history.push(status);
    if (this.#history.length > QMP_LIMITS.clientJobStates) {
      this.#history.shift();
      this.#dropped += 1;
    }
    this.#waiters.tell({ status, stopError: this.#stopError });
    if (isEnd(status)) this.#concluded(status);
    if (status === 'null') this.#over(new BlockError('closed', 'it is gone'));
  }

  #concluded(status: JobState): void {
    if (this.#settle === null || this.#isConcluding) return;
    if (this.#blockEnd !== null || status === 'null') {
      this.#end(outcomeOf({ id: this.id, blockEnd: this.#blockEnd, info: null }));
      return;
    }
    // Jobs that are no block jobs tell their error only when asked.
    this.#isConcluding = true;
    this.info().then(
      (info) => this.#end(outcomeOf({ id: this.id, blockEnd: this.#blockEnd, info })),
      (error: unknown) => this.#fail(error),
    );
  }

  #end(outcome: Omit<JobOutcome, 'request'>): void {
    const settle = this.#settle;
    if (settle === null) return;
    this.#settle = null;
    const whole = { ...outcome, request: this.#request };
    settle.resolve(whole);
    this.#waiters.end(new JobError(whole));
  }

  #fail(error: unknown): void {
    this.#settle?.reject(error);
    this.#settle = null;
    this.#over(error);
  }

  #lost(error: BlockError): void {
    const text = `Job '${this.id}': ${error.message}`;
    this.#fail(new BlockError(error.kind, text, { cause: error }));
  }

  /** Nothing more will be seen. */
  #over(error: unknown): void {
    for (const stop of this.#stops.splice(0)) stop();
    this.#waiters.close(error);
  }
}

function isBirth(event: QmpEvent, id: string): boolean {
  if (event.event !== 'JOB_STATUS_CHANGE') return false;
  return event.data.id === id && event.data.status === 'created';
}

function isEnd(status: JobState): boolean {
  return status === 'concluded' || status === 'null';
}
