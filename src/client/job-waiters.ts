// SPDX-License-Identifier: Apache-2.0
// Those who wait for something of a job: each is told of every change until it has what it wants.
//
// Invariants: a waiter settles once and is forgotten then, also when its signal ended it; nobody
// waits on after end() except for what may still come, and nobody at all after close().

import { JobError } from './job-outcome.js';
import type { JobIoError, JobState } from './job-outcome.js';
import type { WaitOptions } from './runner.js';

export interface JobSight {
  readonly status: JobState | null;
  readonly stopError: JobIoError | null;
}

export interface JobWait extends WaitOptions {
  /** What is awaited, for the message when it never comes. */
  readonly what: string;
  /** It may still come when the outcome is known. */
  readonly afterEnd?: boolean;
}

interface Waiter {
  readonly wait: JobWait;
  offer(sight: JobSight): void;
  fail(error: unknown): void;
}

export class JobWaiters {
  readonly #waiters = new Set<Waiter>();
  #end: JobError | null = null;
  #closed: unknown = null;

  /** `look` gives null while the change is not what is awaited. */
  wait<T>(look: (sight: JobSight) => T | null, wait: JobWait): Promise<T> {
    const { signal } = wait;
    if (signal?.aborted === true) return Promise.reject(signal.reason as Error);
    const refusal = this.#refusal(wait);
    if (refusal !== null) return Promise.reject(refusal as Error);
    return new Promise((resolve, reject) => {
      const forget = (): void => {
        this.#waiters.delete(waiter);
        signal?.removeEventListener('abort', abort);
      };
      const waiter: Waiter = {
        wait,
        offer: (sight) => {
          const found = look(sight);
          if (found === null) return;
          forget();
          resolve(found);
        },
        fail: (error) => {
          forget();
          reject(error as Error);
        },
      };
      const abort = (): void => waiter.fail(signal?.reason);
      this.#waiters.add(waiter);
      signal?.addEventListener('abort', abort);
    });
  }

  tell(sight: JobSight): void {
    for (const waiter of this.#waiters) waiter.offer(sight);
  }

  /** The outcome is known. */
  end(error: JobError): void {
    this.#end = error;
    this.#failHopeless();
  }

  /** Nothing more will be told. */
  close(error: unknown): void {
    this.#closed ??= error;
    this.#failHopeless();
  }

  #failHopeless(): void {
    for (const waiter of this.#waiters) {
      const refusal = this.#refusal(waiter.wait);
      if (refusal !== null) waiter.fail(refusal);
    }
  }

  #refusal({ what, afterEnd }: JobWait): unknown {
    if (this.#closed === null && (this.#end === null || afterEnd === true)) return null;
    return this.#end === null ? this.#closed : new JobError(this.#end.outcome, what);
  }
}
