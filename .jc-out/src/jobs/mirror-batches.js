// SPDX-License-Identifier: Apache-2.0
// The next thing that a mirror copies: dirty units, in whole clusters of the target.
//
// A range is taken and its bits are cleared before the source is looked at, so what a guest writes
// from then on makes it dirty again. Ranges in flight are left alone until they are free.
import { BlockError, COPY_LIMITS } from '../base/index.js';
import { viewStatus } from '../block/copy/index.js';
export class MirrorBatches {
    #options;
    #cursor = 0;
    #inFlight = 0;
    /** From here up to there the source held data when it was last looked at. */
    #data = { offset: 0, length: 0 };
    constructor(options) {
        this.#options = options;
    }
    /** A copy is in flight. */
    get working() {
        return this.#inFlight > 0;
    }
    async next(limit) {
        const { bitmap } = this.#options.state;
        for (;;) {
            const offset = this.#nextFree();
            if (offset < 0) {
                // Dirty ranges in flight, or a guest's write that may fail and give its range back.
                const others = bitmap.locks.wait(0, bitmap.length);
                if (bitmap.dirtyUnits === 0 || others === undefined)
                    return null;
                return { until: others };
            }
            const zeroes = await this.#zeroesAt(offset);
            const range = this.#rangeAt(offset, zeroes > 0 ? zeroes : limit);
            if (range === null)
                continue;
            if (zeroes === 0)
                return this.#claim(range, false);
            const work = await this.#claimZeroes(range);
            if (work !== null)
                return work;
        }
    }
    /** A dirty unit, rounded down, whose range nobody works on; −1 when there is none. */
    #nextFree() {
        const { bitmap } = this.#options.state;
        const ahead = this.#freeFrom(this.#cursor, bitmap.length);
        return ahead >= 0 ? ahead : this.#freeFrom(0, this.#cursor);
    }
    #freeFrom(from, end) {
        const { unit, state } = this.#options;
        const { bitmap } = state;
        for (let at = from; at < end;) {
            const dirty = bitmap.nextDirty(at, end);
            if (dirty < 0)
                return -1;
            const start = Math.floor(dirty / unit) * unit;
            if (!bitmap.locks.overlaps(start, Math.min(unit, bitmap.length - start)))
                return start;
            at = start + unit;
        }
        return -1;
    }
    /** Bytes of whole units at `offset` that read as zeroes now. */
    async #zeroesAt(offset) {
        const { source, state, unit } = this.#options;
        const data = this.#data;
        if (offset >= data.offset && offset < data.offset + data.length)
            return 0;
        const left = state.bitmap.length - offset;
        const asked = Math.min(left, COPY_LIMITS.zeroRangeBytes);
        const status = await statusOf(source.node, offset, asked);
        const whole = this.#wholeUnits(status.length, left);
        if (status.zero && whole > 0)
            return whole;
        this.#data = { offset, length: Math.max(whole, unit) };
        return 0;
    }
    #wholeUnits(length, left) {
        return length >= left ? left : length - (length % this.#options.unit);
    }
    /** Whole units from `offset` on that are dirty and free; null when that one is not any more. */
    #rangeAt(offset, limit) {
        const { unit, state } = this.#options;
        const { bitmap } = state;
        const most = Math.min(bitmap.length, offset + Math.max(unit, limit - (limit % unit)));
        let end = offset;
        while (end < most) {
            const next = Math.min(bitmap.length, end + unit);
            if (bitmap.nextDirty(end, next) < 0 || bitmap.locks.overlaps(end, next - end))
                break;
            end = next;
        }
        return end === offset ? null : { offset, length: end - offset };
    }
    /** Looks again once the bits are clear; null when it is not all zeroes by now. */
    async #claimZeroes(range) {
        const { source, state } = this.#options;
        const work = this.#claim(range, true);
        const status = await statusOf(source.node, range.offset, range.length);
        if (status.zero && status.length >= range.length)
            return work;
        this.#data = { offset: range.offset, length: Math.max(status.length, this.#options.unit) };
        work.giveBack();
        state.bitmap.set(range.offset, range.length);
        return null;
    }
    #claim({ offset, length }, zero) {
        const { state, session, job } = this.#options;
        const { bitmap } = state;
        const release = bitmap.locks.take(offset, length);
        bitmap.clear(offset, length);
        this.#cursor = offset + length;
        this.#inFlight += length;
        const giveBack = () => {
            this.#inFlight -= length;
            release();
        };
        return {
            offset,
            length,
            cost: zero ? 0 : length,
            giveBack,
            run: () => (zero ? session.zero(offset, length) : session.copy(offset, length)),
            over: (failure) => {
                if (failure === null)
                    job.advance(length);
                else
                    bitmap.set(offset, length);
                giveBack();
                job.setTotal(job.progress + this.#inFlight + bitmap.dirtyUnits * bitmap.unit);
            },
        };
    }
}
/** Where it cannot be told the bytes are read, and the read says what is wrong. */
async function statusOf(node, offset, length) {
    try {
        return await viewStatus(node, offset, length);
    }
    catch (error) {
        if (!(error instanceof BlockError))
            throw error;
        return { zero: false, length };
    }
}
