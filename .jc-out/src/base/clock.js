// SPDX-License-Identifier: Apache-2.0
// Time is injected: this file is the only home of Date.now, performance.now and setTimeout.
export const systemClock = {
    now: () => performance.now(),
    wallMicroseconds: () => Math.round((performance.timeOrigin + performance.now()) * 1000),
    after(delayMs, callback) {
        const timer = setTimeout(callback, delayMs);
        return () => clearTimeout(timer);
    },
};
/** A clock that moves only when told to; timers fire in order of their due time. */
export class ManualClock {
    #now = 0;
    #sequence = 0;
    #timers = new Map();
    now() {
        return this.#now;
    }
    wallMicroseconds() {
        return this.#now * 1000;
    }
    after(delayMs, callback) {
        const key = this.#sequence++;
        this.#timers.set(key, { due: this.#now + Math.max(0, delayMs), callback });
        return () => void this.#timers.delete(key);
    }
    get pendingTimers() {
        return this.#timers.size;
    }
    /** Moves time forward by `ms` milliseconds and fires what falls due on the way. */
    advance(ms) {
        const end = this.#now + ms;
        for (;;) {
            const next = this.#earliest(end);
            if (next === undefined)
                break;
            this.#timers.delete(next.key);
            this.#now = Math.max(this.#now, next.due);
            next.callback();
        }
        this.#now = end;
    }
    /** Jumps to the next timer and fires it; false if there is none. */
    advanceToNext() {
        const next = this.#earliest(Infinity);
        if (next === undefined)
            return false;
        this.advance(next.due - this.#now);
        return true;
    }
    #earliest(limit) {
        let best;
        for (const [key, timer] of this.#timers) {
            if (timer.due <= limit && (best === undefined || timer.due < best.due)) {
                best = { key, ...timer };
            }
        }
        return best;
    }
}
