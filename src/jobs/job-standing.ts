// SPDX-License-Identifier: Apache-2.0
// Where a job stands: its status, and the pauses that its user and drained sections have asked
// for, which nest. A job whose work is parked shows a pause at once, others at their next pause
// point.

import { assert } from '../base/index.js';
import { assertTransition } from './job-states.js';
import type { JobStatus } from './job-states.js';

/** Before the work starts, and once it has returned. */
const WITHOUT_WORK: readonly JobStatus[] = ['created', 'waiting', 'pending'];

export class JobStanding {
  #status: JobStatus = 'undefined';
  #pauses = 0;
  #pausedByUser = false;
  readonly #tell: (status: JobStatus) => void;

  /** `tell` hears of every new status. */
  constructor(tell: (status: JobStatus) => void) {
    this.#tell = tell;
  }

  get status(): JobStatus {
    return this.#status;
  }

  become(status: JobStatus): void {
    assertTransition(this.#status, status);
    this.#status = status;
    this.#tell(status);
  }

  get isReady(): boolean {
    return this.#status === 'ready' || this.#status === 'standby';
  }

  /** The work has started and not yet returned. */
  get mayRun(): boolean {
    return !WITHOUT_WORK.includes(this.#status);
  }

  get isPauseAsked(): boolean {
    return this.#pauses > 0;
  }

  get isPausedByUser(): boolean {
    return this.#pausedByUser;
  }

  pauseByUser(): void {
    if (this.#pausedByUser) return;
    this.#pausedByUser = true;
    this.#pauses += 1;
  }

  /** False where the user has not paused it. */
  resumeByUser(): boolean {
    if (!this.#pausedByUser) return false;
    this.#pausedByUser = false;
    this.#pauses -= 1;
    return true;
  }

  /** A drained section begins. */
  hold(): void {
    this.#pauses += 1;
  }

  /** A drained section ends. */
  release(): void {
    assert(this.#pauses > 0, 'the job is not quiesced');
    this.#pauses -= 1;
  }

  showPause(): void {
    if (this.#status === 'running') this.become('paused');
    else if (this.#status === 'ready') this.become('standby');
  }

  leavePause(): void {
    if (this.#status === 'paused') this.become('running');
    else if (this.#status === 'standby') this.become('ready');
  }
}
