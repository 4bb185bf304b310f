// SPDX-License-Identifier: Apache-2.0
// A leaky bucket: what was let through fills it, time empties it at the allowed rate, and a request
// waits while more than the allowance is in it. Times are seconds here.
//
// Without a burst rate the allowance is a tenth of a second's worth. With one it is all that the
// burst may move; a burst longer than a second is itself held to its rate by a second level.
/** Share of a second that may pass at once. */
const ALLOWANCE_SECONDS = 0.1;
export class LeakyBucket {
    #limit;
    #level = 0;
    #burstLevel = 0;
    constructor(limit) {
        this.#limit = limit;
    }
    leak(seconds) {
        const { average, maximum } = this.#limit;
        this.#level = Math.max(0, this.#level - average * seconds);
        this.#burstLevel = Math.max(0, this.#burstLevel - maximum * seconds);
    }
    charge(amount) {
        this.#level += amount;
        if (this.#limit.burstLength > 1)
            this.#burstLevel += amount;
    }
    /** Seconds until a request may pass; 0 = now. */
    waitSeconds() {
        const { average, maximum, burstLength } = this.#limit;
        if (average === 0)
            return 0;
        const allowance = maximum === 0 ? average * ALLOWANCE_SECONDS : maximum * burstLength;
        const wait = Math.max(0, (this.#level - allowance) / average);
        if (maximum === 0 || burstLength <= 1)
            return wait;
        // Both at once: what rounding leaves of the first must not hide the second.
        return Math.max(wait, (this.#burstLevel - maximum * ALLOWANCE_SECONDS) / maximum);
    }
}
