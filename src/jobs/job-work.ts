// SPDX-License-Identifier: Apache-2.0
// What a job is given (its work, its setup, its surroundings), and what it tells of itself.
//
// A JobWork does the job; the Job (job.ts) drives it through its states and calls each method at
// most when its comment says so.

import { BlockError } from '../base/index.js';
import type { Clock } from '../base/index.js';
import type { Job } from './job.js';
import type { JobStatus, JobType } from './job-states.js';
import type { JobTransaction } from './job-transaction.js';

/** What a job does; every method but run() may be left out. */
export interface JobWork {
  /** Resolves with everything it wrote flushed; throws to fail the job. */
  run(job: Job): Promise<void>;
  /** At PENDING: changes links; a throw fails the whole transaction. */
  prepare?(): Promise<void>;
  commit?(): void;
  abort?(): void;
  /** However the job ended, also when it never started: lets go of filters and edges. */
  clean?(): Promise<void>;
  /** The job leaves the list: lets go of what a concluded job still has, edges at once. */
  dismiss?(): Promise<void>;
  setSpeed?(bytesPerSecond: number): void;
  /** Works differently from now on; refused where this is missing. */
  change?(changes: JobChanges): void;
  /** The user asks a READY job to come to its end; refused where this is missing. */
  complete?(): void;
  /** Somebody has asked the job to end, once: what takes long and can be given up is. */
  cancelled?(): void;
  /** Its end takes a moment: a cancel is answered before the events of the end. */
  readonly lingers?: boolean;
  /** Mirrors: the target is as the source, and a guest's write ends when both have it. */
  activelySynced?(): boolean;
  /** A READY job is cancelled without force: it ends in good order, changing no link. */
  finish?(): void;
}

/** What a user may change of a running job, by its type. */
export interface JobChanges {
  readonly type: JobType;
  readonly 'copy-mode'?: 'background' | 'write-blocking';
}

export function changeRefused(): BlockError {
  return new BlockError('unsupported', 'Job type does not support change');
}

export interface JobEvent {
  readonly name: string;
  readonly data: Readonly<Record<string, unknown>>;
}

export interface JobInfo {
  readonly id: string;
  readonly type: JobType;
  readonly status: JobStatus;
  readonly 'current-progress': number;
  readonly 'total-progress': number;
  readonly error?: string;
}

export type IoStatus = 'ok' | 'failed' | 'nospace';

export type BlockJobInfo = BlockJobState &
  (
    | { readonly type: Exclude<JobType, 'mirror'> }
    | { readonly type: 'mirror'; readonly 'actively-synced': boolean }
  );

interface BlockJobState {
  readonly device: string;
  readonly len: number;
  readonly offset: number;
  readonly busy: boolean;
  readonly paused: boolean;
  readonly speed: number;
  readonly 'io-status': IoStatus;
  readonly ready: boolean;
  readonly status: JobStatus;
  readonly 'auto-finalize': boolean;
  readonly 'auto-dismiss': boolean;
  readonly error?: string;
}

export interface JobSetup {
  readonly id: string;
  readonly type: JobType;
  /** False for create and amend: no BLOCK_JOB_* events, unknown to block-job-* verbs. */
  readonly blockJob: boolean;
  readonly autoFinalize: boolean;
  readonly autoDismiss: boolean;
  readonly transaction?: JobTransaction;
}

export interface JobSurroundings {
  readonly clock: Clock;
  emit(event: JobEvent): void;
  /** The job left the list. */
  forget(job: Job): void;
}
