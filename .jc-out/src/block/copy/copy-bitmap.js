// SPDX-License-Identifier: Apache-2.0
// What of a node is still to be copied, in copy units: shared by the backup job and its
// copy-before-write filter.
//
// A unit is dirty (to be copied), taken (a copy is in flight) or clean. Whoever takes a run clears
// its dirty bits at once and gives them back when the copy failed; everyone else waits for the
// run to end. So no unit is ever copied twice at the same time, nor after it was copied well.
// Pages of bits exist only where dirty and clean units are mixed.
import { assert } from '../../base/index.js';
import { RangeLocks } from './range-locks.js';
const PAGE_UNITS = 32_768;
export class CopyBitmap {
    length;
    /** Bytes; a power of two. */
    unit;
    locks = new RangeLocks();
    #unitCount;
    /** 'dirty' and 'clean' pages need no bits. */
    #pages;
    #dirtyUnits;
    constructor(length, unit, initially = 'dirty') {
        this.length = length;
        this.unit = unit;
        this.#unitCount = Math.ceil(length / unit);
        this.#dirtyUnits = initially === 'dirty' ? this.#unitCount : 0;
        const pageCount = Math.ceil(this.#unitCount / PAGE_UNITS);
        this.#pages = Array.from({ length: pageCount }, () => initially);
    }
    /** The same units are dirty; from now on each changes alone. Nothing is taken in it. */
    clone() {
        const copy = new CopyBitmap(this.length, this.unit, 'clean');
        for (const [index, page] of this.#pages.entries()) {
            copy.#pages[index] = typeof page === 'string' ? page : page.slice();
        }
        copy.#dirtyUnits = this.#dirtyUnits;
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
        return this.#dirtyUnits;
    }
    isDirty(offset) {
        const unit = Math.floor(offset / this.unit);
        const page = this.#pages[Math.floor(unit / PAGE_UNITS)];
        if (typeof page === 'string')
            return page === 'dirty';
        const bit = unit % PAGE_UNITS;
        return page !== undefined && ((page[bit >> 3] ?? 0) & (1 << (bit & 7))) !== 0;
    }
    /** Offset of the first dirty unit that begins in [offset, end), or −1. */
    nextDirty(offset, end = this.length) {
        let unit = Math.ceil(offset / this.unit);
        const unitEnd = Math.min(this.#unitCount, Math.ceil(end / this.unit));
        while (unit < unitEnd) {
            const page = this.#pages[Math.floor(unit / PAGE_UNITS)];
            if (page === 'clean')
                unit = (Math.floor(unit / PAGE_UNITS) + 1) * PAGE_UNITS;
            else if (this.isDirty(unit * this.unit))
                return unit * this.unit;
            else
                unit += 1;
        }
        return -1;
    }
    /** Whether every unit that the range touches is dirty. */
    isAllDirty(offset, length) {
        const unitEnd = Math.min(this.#unitCount, Math.ceil((offset + length) / this.unit));
        for (let unit = Math.floor(offset / this.unit); unit < unitEnd;) {
            const index = Math.floor(unit / PAGE_UNITS);
            if (this.#pages[index] === 'dirty')
                unit = (index + 1) * PAGE_UNITS;
            else if (this.isDirty(unit * this.unit))
                unit += 1;
            else
                return false;
        }
        return true;
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
        const last = Math.min(this.#unitCount, first + most);
        let unit = first;
        while (unit < last && this.isDirty(unit * this.unit)) {
            const index = Math.floor(unit / PAGE_UNITS);
            unit = this.#pages[index] === 'dirty' ? (index + 1) * PAGE_UNITS : unit + 1;
        }
        return Math.min(Math.min(unit, last) * this.unit, this.length) - offset;
    }
    set(offset, length) {
        this.#change(offset, length, true);
    }
    clear(offset, length) {
        this.#change(offset, length, false);
    }
    #change(offset, length, dirty) {
        const first = Math.floor(offset / this.unit);
        const end = Math.min(this.#unitCount, Math.ceil((offset + length) / this.unit));
        for (let unit = first; unit < end;) {
            const index = Math.floor(unit / PAGE_UNITS);
            const pageEnd = Math.min((index + 1) * PAGE_UNITS, this.#unitCount, end);
            const wholePage = unit === index * PAGE_UNITS &&
                pageEnd === Math.min((index + 1) * PAGE_UNITS, this.#unitCount);
            if (wholePage)
                this.#changePage(index, dirty);
            else
                for (let each = unit; each < pageEnd; each += 1)
                    this.#changeUnit(each, dirty);
            unit = pageEnd;
        }
    }
    #changePage(index, dirty) {
        const count = Math.min(PAGE_UNITS, this.#unitCount - index * PAGE_UNITS);
        const before = this.#dirtyIn(index, count);
        this.#pages[index] = dirty ? 'dirty' : 'clean';
        this.#dirtyUnits += (dirty ? count : 0) - before;
    }
    #dirtyIn(index, count) {
        const page = this.#pages[index];
        if (typeof page === 'string')
            return page === 'dirty' ? count : 0;
        const start = index * PAGE_UNITS;
        let dirty = 0;
        for (let unit = start; unit < start + count; unit += 1) {
            if (this.isDirty(unit * this.unit))
                dirty += 1;
        }
        return dirty;
    }
    #changeUnit(unit, dirty) {
        if (this.isDirty(unit * this.unit) === dirty)
            return;
        const index = Math.floor(unit / PAGE_UNITS);
        let page = this.#pages[index];
        assert(page !== undefined, `unit ${unit} is beyond the bitmap`);
        if (typeof page === 'string') {
            page = new Uint8Array(PAGE_UNITS / 8).fill(page === 'dirty' ? 0xff : 0);
            this.#pages[index] = page;
        }
        const bit = unit % PAGE_UNITS;
        page[bit >> 3] = (page[bit >> 3] ?? 0) ^ (1 << (bit & 7));
        this.#dirtyUnits += dirty ? 1 : -1;
    }
}
