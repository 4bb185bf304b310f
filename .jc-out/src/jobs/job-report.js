// SPDX-License-Identifier: Apache-2.0
// What a job tells of itself: in query-jobs, in query-block-jobs, and in the events of its end.
//
// Progress never goes back; its total may grow and shrink. The first error is the one that is told.
export class JobReport {
    /** Bytes (or steps). */
    progress = 0;
    total = 0;
    /** Bytes per second; 0 = unlimited. */
    speed = 0;
    ioStatus = 'ok';
    error = null;
    #job;
    constructor(job) {
        this.#job = job;
    }
    info() {
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
    blockInfo(activelySynced) {
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
    endFacts() {
        const { id, type } = this.#job;
        return { device: id, len: this.total, offset: this.progress, speed: this.speed, type };
    }
    #errorFact() {
        return this.error === null ? {} : { error: this.error };
    }
}
