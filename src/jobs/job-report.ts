// SPDX-License-Identifier: Apache-2.0
// What a job tells of itself: in query-jobs, in query-block-jobs, and in the events of its end.
//
// Progress never goes back; its total may grow and shrink. The first error is the one that is told.

import type { BlockJobInfo, IoStatus, JobInfo } from './job-work.js';
import type { JobStatus, JobType } from './job-states.js';

/** What else of the job is told. */
export interface ReportedJob {
  readonly id: string;
  readonly type: JobType;
  readonly status: JobStatus;
  readonly ready: boolean;
  readonly pauseRequested: boolean;
  readonly working: boolean;
  readonly autoFinalize: boolean;
  readonly autoDismiss: boolean;
}

export class JobReport {
  /** Bytes (or steps). */
  progress = 0;
  total = 0;
  /** Bytes per second; 0 = unlimited. */
  speed = 0;
  ioStatus: IoStatus = 'ok';
  error: string | null = null;
  readonly #job: ReportedJob;

  constructor(job: ReportedJob) {
    this.#job = job;
  }

  info(): JobInfo {
    const { id, type, status } = this.#job;
    return {
      id,
      type,
      status,
      'current-progress': this.progress,
      'total-progress': this.total,
      ...this.#errorFact(),
    };
  }

  blockInfo(activelySynced: boolean): BlockJobInfo {
    const job = this.#job;
    const { type } = job;
    const state = {
      device: job.id,
      len: this.total,
      offset: this.progress,
      busy: job.working,
      paused: job.pauseRequested,
      speed: this.speed,
      'io-status': this.ioStatus,
      ready: job.ready,
      status: job.status,
      'auto-finalize': job.autoFinalize,
      'auto-dismiss': job.autoDismiss,
      ...this.#errorFact(),
    };
    return type === 'mirror'
      ? { type, ...state, 'actively-synced': activelySynced }
      : { type, ...state };
  }

  /** Data of BLOCK_JOB_READY, _COMPLETED and _CANCELLED. */
  endFacts(): Readonly<Record<string, unknown>> {
    const { id, type } = this.#job;
    return { device: id, len: this.total, offset: this.progress, speed: this.speed, type };
  }

  #errorFact(): { readonly error?: string } {
    return this.error === null ? {} : { error: this.error };
  }
}
