// SPDX-License-Identifier: Apache-2.0
// A job's speed limit, charged when work is dispatched; it never sleeps itself.
//
// Time is spent in advance: each charge moves `#paidUntil` by the time it takes at the present
// speed, and the next dispatch may happen once that moment has come. Idle time is not saved up
// beyond one slice, so a job that was paused does not rush afterwards.
import { COPY_LIMITS } from '../../base/index.js';
/** Timers of the platform hold no more than 31 bits of milliseconds. */
const MAX_DELAY_MS = 2 ** 30;
export class RateLimiter {
    #clock;
    #bytesPerSecond = 0;
    /** Milliseconds of the clock. */
    #paidUntil = 0;
    constructor(clock) {
        this.#clock = clock;
    }
    /** Bytes per second; 0 = no limit. A debt shrinks to one slice, so a new speed acts at once. */
    setSpeed(bytesPerSecond) {
        this.#bytesPerSecond = bytesPerSecond;
        this.#paidUntil = Math.min(this.#paidUntil, this.#clock.now() + COPY_LIMITS.sliceMs);
    }
    /** Largest batch in bytes that does not exceed one slice of quota; Infinity without a limit. */
    get sliceBytes() {
        if (this.#bytesPerSecond === 0)
            return Infinity;
        return Math.ceil((this.#bytesPerSecond * COPY_LIMITS.sliceMs) / 1000);
    }
    /** Milliseconds until the next dispatch; 0 = now. */
    delayMs() {
        if (this.#bytesPerSecond === 0)
            return 0;
        return Math.min(MAX_DELAY_MS, Math.max(0, this.#paidUntil - this.#clock.now()));
    }
    charge(bytes) {
        if (this.#bytesPerSecond === 0)
            return;
        const earliest = this.#clock.now() - COPY_LIMITS.sliceMs;
        const cost = (bytes * 1000) / this.#bytesPerSecond;
        this.#paidUntil = Math.max(this.#paidUntil, earliest) + cost;
    }
}
