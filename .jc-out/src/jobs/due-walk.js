// SPDX-License-Identifier: Apache-2.0
// A job's one walk over its image, from the first byte to the last: what is due is claimed in whole
// units for the copy loop, what is not is passed by.
//
// The cursor never goes back. What failed and is to be tried again comes after all else; progress
// is what lies before the first byte that is still in flight or has failed.
import { yieldToLoop } from '../block/copy/index.js';
import { ScanPace } from './scan-pace.js';
export class DueWalk {
    #options;
    #pace = new ScanPace();
    /** Ranges claimed and not yet copied; those that failed are in `#failed` until tried again. */
    #due = new Set();
    #failed = new Map();
    #cursor = 0;
    constructor(options) {
        this.#options = options;
    }
    /** The next range of at most `limit` bytes; null when nothing is left that could be claimed. */
    async next(limit) {
        const { length, unit } = this.#options;
        while (this.#cursor < length) {
            if (this.#pace.due())
                return { until: yieldToLoop() };
            const status = await this.#options.statusAt(this.#cursor, length);
            if (status.due) {
                const start = Math.floor(this.#cursor / unit) * unit;
                const most = Math.min(start + limit, length);
                const until = await this.#dueUntil(this.#cursor + status.length, most);
                const end = Math.min(Math.ceil(until / unit) * unit, most);
                return this.#claim(start, end - start);
            }
            this.#cursor += status.length;
            if (this.#due.size === 0)
                this.#tell();
        }
        return this.#retry();
    }
    /** Up to where what is due goes on: layers tell of it in short runs. */
    async #dueUntil(from, most) {
        for (let at = from; at < most;) {
            const status = await this.#options.statusAt(at, most);
            if (!status.due)
                return at;
            at += status.length;
        }
        return Math.max(from, most);
    }
    #claim(offset, length) {
        this.#cursor = Math.max(this.#cursor, offset + length);
        this.#due.add(offset);
        return {
            offset,
            length,
            cost: length,
            run: () => this.#options.copy(offset, length),
            over: (failure) => {
                this.#due.delete(offset);
                if (failure !== null && this.#options.retries)
                    this.#failed.set(offset, length);
                else
                    this.#tell();
            },
        };
    }
    #retry() {
        for (const [offset, length] of this.#failed) {
            this.#failed.delete(offset);
            return this.#claim(offset, length);
        }
        return null;
    }
    #tell() {
        const open = Math.min(...this.#due, ...this.#failed.keys());
        this.#options.job.progressTo(Math.min(this.#cursor, open));
    }
}
