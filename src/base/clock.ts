// SPDX-License-Identifier: Apache-2.0
// Time is injected: this file is the only home of Date.now, performance.now and setTimeout.

/** Cancels a timer; harmless once it has fired. */
export type CancelTimer = () => void;

export interface Clock {
  /** Monotonic milliseconds, for rates and timeouts. */
  now(): number;
  /** Microseconds since the epoch, for event timestamps and image dates. */
  wallMicroseconds(): number;
  /** Calls back once after `delayMs` milliseconds at the earliest. */
  after(delayMs: number, callback: () => void): CancelTimer;
  /** The same for housekeeping, which nobody waits for: it does not keep the process alive. */
  afterIdle(delayMs: number, callback: () => void): CancelTimer;
}

export const systemClock: Clock = {
  now: () => performance.now(),
  wallMicroseconds: () => Math.round((performance.timeOrigin + performance.now()) * 1000),
  after(delayMs, callback) {
    const timer = setTimeout(callback, delayMs);
    return () => clearTimeout(timer);
  },
  afterIdle(delayMs, callback) {
    const timer = setTimeout(callback, delayMs).unref();
    return () => clearTimeout(timer);
  },
};

interface Timer {
  readonly due: number;
  readonly idle: boolean;
  readonly callback: () => void;
}

/** A clock that moves only when told to; timers fire in order of their due time. */
export class ManualClock implements Clock {
  #now = 0;
  #sequence = 0;
  readonly #timers = new Map<number, Timer>();

  now(): number {
    return this.#now;
  }

  wallMicroseconds(): number {
    return this.#now * 1000;
  }

  after(delayMs: number, callback: () => void): CancelTimer {
    return this.#add({ due: this.#now + Math.max(0, delayMs), idle: false, callback });
  }

  afterIdle(delayMs: number, callback: () => void): CancelTimer {
    return this.#add({ due: this.#now + Math.max(0, delayMs), idle: true, callback });
  }

  get pendingTimers(): number {
    return this.#timers.size;
  }

  /** Moves time forward by `ms` milliseconds and fires what falls due on the way. */
  advance(ms: number): void {
    const end = this.#now + ms;
    for (;;) {
      const next = this.#earliest(end, true);
      if (next === undefined) break;
      this.#timers.delete(next.key);
      this.#now = Math.max(this.#now, next.due);
      next.callback();
    }
    this.#now = end;
  }

  /** Jumps to the next timer that is not idle and fires all until then; false if there is none. */
  advanceToNext(): boolean {
    const next = this.#earliest(Infinity, false);
    if (next === undefined) return false;
    this.advance(next.due - this.#now);
    return true;
  }

  #add(timer: Timer): CancelTimer {
    const key = this.#sequence++;
    this.#timers.set(key, timer);
    return () => void this.#timers.delete(key);
  }

  #earliest(limit: number, withIdle: boolean): (Timer & { key: number }) | undefined {
    let best: (Timer & { key: number }) | undefined;
    for (const [key, timer] of this.#timers) {
      if (timer.idle && !withIdle) continue;
      if (timer.due <= limit && (best === undefined || timer.due < best.due)) {
        best = { key, ...timer };
      }
    }
    return best;
  }
}
