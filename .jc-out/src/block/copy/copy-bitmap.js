// SPDX-License-Identifier: Apache-2.0
// What of a node is still to be copied, in copy units: shared by the backup job and its
// copy-before-write filter.
//
// A unit is dirty (to be copied), taken (a copy is in flight) or clean. Whoever takes a run clears
// its dirty bits at once and gives them back when the copy failed; everyone else waits for the
// run to end. So no unit is ever copied twice at the same time, nor after it was copied well.
// However large the node is, its bits cost memory and time only where they are mixed.
import { BitPages } from '../bitmap/bit-pages.js';
import { RangeLocks } from './range-locks.js';
export class CopyBitmap {
    length;
    /** Bytes; a power of two. */
    unit;
    locks = new RangeLocks();
    #bits;
    /** `length` and `unit` in bytes. */
    constructor(length, unit, initially = 'dirty') {
        this.length = length;
        this.unit = unit;
        this.#bits = new BitPages(Math.ceil(length / unit));
        if (initially === 'dirty')
            this.#bits.fill(0, this.#bits.size, true);
    }
    /** The same units are dirty; from now on each changes alone. Nothing is taken in it. */
    clone() {
        const copy = new CopyBitmap(this.length, this.unit, 'clean');
        copy.#bits = this.#bits.clone();
        return copy;
    }
    /** The units that are still to be copied, those being copied now among them. */
    uncopied() {
        const copy = this.clone();
        for (const { offset, length } of this.locks.ranges())
            copy.set(offset, length);
        return copy;
    }
    get dirtyUnits() {
        return this.#bits.count;
    }
    isDirty(offset) {
        return this.#bits.get(Math.floor(offset / this.unit));
    }
    /** Offset of the first dirty unit that begins in [offset, end), or −1. */
    nextDirty(offset, end = this.length) {
        const limit = Math.min(this.#bits.size, Math.ceil(end / this.unit));
        const unit = this.#bits.next(Math.ceil(offset / this.unit), limit, true);
        return unit < limit ? unit * this.unit : -1;
    }
    /** Whether every unit that the range touches is dirty. */
    isAllDirty(offset, length) {
        const limit = Math.min(this.#bits.size, Math.ceil((offset + length) / this.unit));
        return this.#bits.next(Math.floor(offset / this.unit), limit, false) >= limit;
    }
    /**
     * Bytes of dirty units that follow `offset` (a dirty unit's) without a gap, at most `limit`:
     * whole units, at least one; only the end of the node cuts the last one short.
     */
    dirtyRun(offset, limit) {
        // A limit that reaches the end covers the unit that the end cuts short.
        const reachesEnd = offset + limit >= this.length;
        const first = Math.floor(offset / this.unit);
        const most = reachesEnd ? Infinity : Math.max(1, Math.floor(limit / this.unit));
        const end = this.#bits.next(first, Math.min(this.#bits.size, first + most), false);
        return Math.min(end * this.unit, this.length) - offset;
    }
    /** Every unit that the range touches is to be copied. */
    set(offset, length) {
        this.#fill(offset, length, true);
    }
    /** No unit that the range touches is to be copied any more. */
    clear(offset, length) {
        this.#fill(offset, length, false);
    }
    #fill(offset, length, dirty) {
        const first = Math.floor(offset / this.unit);
        const end = Math.ceil((offset + length) / this.unit);
        this.#bits.fill(first, end - first, dirty);
    }
}
