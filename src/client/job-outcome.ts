// SPDX-License-Identifier: Apache-2.0
// How a job ended, told from what its events and query-jobs said.

import type { CommandResult, EventData } from '../api/index.js';

export type JobState = CommandResult<'query-jobs'>[number]['status'];

/** An I/O error that the job met, and what its policy made of it. */
export type JobIoError = EventData<'BLOCK_JOB_ERROR'>;

/** What a handle asked of its job last: complete(), finishWithoutPivot() or cancel(). */
export type JobRequest = 'complete' | 'finish' | 'cancel';

export interface JobOutcome {
  readonly id: string;
  /**
   * `discarded`: created but never started, because the command was refused; or dismissed by
   * someone else before its result could be read.
   */
  readonly result: 'completed' | 'failed' | 'cancelled' | 'discarded';
  readonly error: string | null;
  /**
   * What this handle had asked for. A mirror that `completed` has pivoted after `complete`, and
   * has not after `finish`.
   */
  readonly request: JobRequest | null;
}

/** A job that was to complete did not, or ended before it came where it was awaited. */
export class JobError extends Error {
  constructor(
    readonly outcome: JobOutcome,
    /** The state that was awaited, if it was not the end. */
    awaited?: string,
  ) {
    const before = awaited === undefined ? '' : ` before it was ${awaited}`;
    const why = outcome.error === null ? '' : `: ${outcome.error}`;
    super(`Job '${outcome.id}' ${outcome.result}${before}${why}`);
    this.name = 'JobError';
  }
}

/** What BLOCK_JOB_COMPLETED or BLOCK_JOB_CANCELLED said. */
export interface BlockEnd {
  readonly cancelled: boolean;
  readonly error: string | null;
}

/** What jobs without events of their own show in query-jobs after a cancel. */
const CANCELLED_TEXT = 'Operation canceled';

export function outcomeOf(seen: {
  readonly id: string;
  readonly blockEnd: BlockEnd | null;
  readonly info: { readonly error?: string } | null;
}): Omit<JobOutcome, 'request'> {
  const { id, blockEnd, info } = seen;
  if (blockEnd?.cancelled === true) return { id, result: 'cancelled', error: blockEnd.error };
  if (blockEnd === null && info === null) return { id, result: 'discarded', error: null };
  const error = blockEnd?.error ?? info?.error ?? null;
  if (error === null) return { id, result: 'completed', error };
  const isCancelled = blockEnd === null && error === CANCELLED_TEXT;
  if (isCancelled) return { id, result: 'cancelled', error: null };
  return { id, result: 'failed', error };
}
