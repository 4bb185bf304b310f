// SPDX-License-Identifier: Apache-2.0
// One job as a client follows it: from events, so that a job which ends and is dismissed between
// two looks is not missed.
//
// The handle watches from its creation until the job is gone: make it before the command that
// starts the job. A job that was concluded already is found by query-jobs. `done` never leaves an
// unhandled rejection.

import type { CommandResult } from '../api/index.js';
import type { QmpEvent } from './event-stream.js';
import { abortable } from './runner.js';
import type { CommandRunner, WaitOptions } from './runner.js';

export type JobState = CommandResult<'query-jobs'>[number]['status'];

export interface JobOutcome {
  readonly id: string;
  /**
   * `discarded`: created but never started, because the command was refused; or dismissed by
   * someone else before its result could be read.
   */
  readonly result: 'completed' | 'failed' | 'cancelled' | 'discarded';
  readonly error: string | null;
}

interface Waiter {
  readonly states: readonly JobState[];
  resolve(status: JobState): void;
}

export class JobHandle {
  readonly id: string;
  /** Resolves once the job is concluded; rejects when the connection is lost before. */
  readonly done: Promise<JobOutcome>;
  readonly #client: CommandRunner;
  readonly #stop: () => void;
  readonly #history: JobState[] = [];
  #waiters: Waiter[] = [];
  #blockEnd: { readonly cancelled: boolean; readonly error: string | null } | null = null;

  constructor(client: CommandRunner, id: string) {
    this.id = id;
    this.#client = client;
    this.#stop = client.onEvent((event) => this.#see(event));
    this.done = this.#watch();
    this.done.catch(() => this.#stop());
  }

  /** The last status seen; null before the first event. */
  get status(): JobState | null {
    return this.#history.at(-1) ?? null;
  }

  /** Every status seen, in order. */
  get history(): readonly JobState[] {
    return this.#history;
  }

  /** `done`, given up early when the signal says so; throws unless the job completed. */
  async completed(options: WaitOptions = {}): Promise<void> {
    const outcome = await abortable(this.done, options.signal);
    if (outcome.result !== 'completed') {
      throw new Error(`Job '${this.id}' ${outcome.result}: ${outcome.error ?? 'no error given'}`);
    }
  }

  /** Resolves when the job is in one of the states, now or later. */
  reach(states: readonly JobState[], options: WaitOptions = {}): Promise<JobState> {
    const { status } = this;
    if (status !== null && states.includes(status)) return Promise.resolve(status);
    const reached = new Promise<JobState>((resolve) => {
      this.#waiters.push({ states, resolve });
    });
    const ended = this.done.then((outcome) => {
      throw new Error(`Job '${this.id}' ${outcome.result} before it was ${states.join(' or ')}`);
    });
    return abortable(Promise.race([reached, ended]), options.signal);
  }

  pause(): Promise<unknown> {
    return this.#client.execute('job-pause', { id: this.id });
  }
  resume(): Promise<unknown> {
    return this.#client.execute('job-resume', { id: this.id });
  }
  /** Ends the job wherever it is, a READY one too: nothing it copied can be relied on. */
  cancel(): Promise<unknown> {
    return this.#client.execute('job-cancel', { id: this.id });
  }
  /**
   * Ends a READY mirror or active commit in good order and changes no link: its result is
   * `completed`. Before READY this is cancel(). Refused while its user has it paused.
   */
  finishWithoutPivot(): Promise<unknown> {
    return this.#client.execute('block-job-cancel', { device: this.id });
  }
  /** A READY mirror or active commit takes its place in the graph and ends. */
  complete(): Promise<unknown> {
    return this.#client.execute('job-complete', { id: this.id });
  }
  finalize(): Promise<unknown> {
    return this.#client.execute('job-finalize', { id: this.id });
  }
  dismiss(): Promise<unknown> {
    return this.#client.execute('job-dismiss', { id: this.id });
  }
  setSpeed(bytesPerSecond: number): Promise<unknown> {
    return this.#client.execute('block-job-set-speed', { device: this.id, speed: bytesPerSecond });
  }

  /** As query-jobs shows it; null when the server does not know it (any more). */
  async info(): Promise<CommandResult<'query-jobs'>[number] | null> {
    const jobs = await this.#client.execute('query-jobs');
    return jobs.find((job) => job.id === this.id) ?? null;
  }

  async #watch(): Promise<JobOutcome> {
    const concluded = new Promise<JobState>((resolve) => {
      this.#waiters.push({ states: ['concluded', 'null'], resolve });
    });
    const lost = new Promise<never>((_, reject) => {
      this.info().then((info) => {
        if (info?.status === 'concluded') this.#reached('concluded');
      }, reject);
      this.#client.closed.then(
        () => reject(new Error(`Job '${this.id}': connection lost`)),
        reject,
      );
    });
    const status = await Promise.race([concluded, lost]);
    if (this.#blockEnd !== null) {
      const { cancelled, error } = this.#blockEnd;
      if (cancelled) return { id: this.id, result: 'cancelled', error };
      return { id: this.id, result: error === null ? 'completed' : 'failed', error };
    }
    const info = status === 'null' ? null : await this.info();
    if (info === null) return { id: this.id, result: 'discarded', error: null };
    const error = info.error ?? null;
    return { id: this.id, result: error === null ? 'completed' : 'failed', error };
  }

  #see(event: QmpEvent): void {
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
      default:
    }
  }

  #reached(status: JobState): void {
    if (status === 'created') this.#blockEnd = null;
    if (status === 'null') this.#stop();
    this.#history.push(status);
    const [reached, waiting] = partition(this.#waiters, (waiter) => waiter.states.includes(status));
    this.#waiters = waiting;
    for (const waiter of reached) waiter.resolve(status);
  }
}

function partition<T>(items: readonly T[], test: (item: T) => boolean): [T[], T[]] {
  return [items.filter(test), items.filter((item) => !test(item))];
}
