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
  readonly length: number;
  /** Bytes; a power of two. */
  readonly unit: number;
  readonly locks = new RangeLocks();
  readonly #unitCount: number;
  /** 'dirty' and 'clean' pages need no bits. */
  readonly #pages: ('dirty' | 'clean' | Uint32Array)[];
  #dirtyUnits: number;

  constructor(length: number, unit: number, initially: 'dirty' | 'clean' = 'dirty') {
    this.length = length;
    this.unit = unit;
    this.#unitCount = Math.ceil(length / unit);
    this.#dirtyUnits = initially === 'dirty' ? this.#unitCount : 0;
    const pageCount = Math.ceil(this.#unitCount / PAGE_UNITS);
    this.#pages = Array.from({ length: pageCount }, () => initially);
  }

  /** The same units are dirty; from now on each changes alone. Nothing is taken in it. */
  clone(): CopyBitmap {
    const copy = new CopyBitmap(this.length, this.unit, 'clean');
    for (const [index, page] of this.#pages.entries()) {
      copy.#pages[index] = typeof page === 'string' ? page : page.slice();
    }
    copy.#dirtyUnits = this.#dirtyUnits;
    return copy;
  }

  /** The units that are still to be copied, those being copied now among them. */
  uncopied(): CopyBitmap {
    const copy = this.clone();
    for (const { offset, length } of this.locks.ranges()) copy.set(offset, length);
    return copy;
  }

  get dirtyUnits(): number {
    return this.#dirtyUnits;
  }

  isDirty(offset: number): boolean {
    const unit = Math.floor(offset / this.unit);
    const page = this.#pages[Math.floor(unit / PAGE_UNITS)];
    if (typeof page === 'string') return page === 'dirty';
    const bit = unit % PAGE_UNITS;
    return page !== undefined && (((page[bit >>> 5] ?? 0) >>> (bit & 31)) & 1) !== 0;
  }

  /** Offset of the first dirty unit that begins in [offset, end), or −1. */
  nextDirty(offset: number, end = this.length): number {
    const unitEnd = Math.min(this.#unitCount, Math.ceil(end / this.unit));
    const unit = this.#next(true, Math.ceil(offset / this.unit), unitEnd);
    return unit < unitEnd ? unit * this.unit : -1;
  }

  /** Whether every unit that the range touches is dirty. */
  isAllDirty(offset: number, length: number): boolean {
    const unitEnd = Math.min(this.#unitCount, Math.ceil((offset + length) / this.unit));
    return this.#next(false, Math.floor(offset / this.unit), unitEnd) >= unitEnd;
  }

  /**
   * Bytes of dirty units that follow `offset` (a dirty unit's) without a gap, at most `limit`:
   * whole units, at least one; only the end of the node cuts the last one short.
   */
  dirtyRun(offset: number, limit: number): number {
    // A limit that reaches the end covers the unit that the end cuts short.
    const reachesEnd = offset + limit >= this.length;
    const first = Math.floor(offset / this.unit);
    const most = reachesEnd ? Infinity : Math.max(1, Math.floor(limit / this.unit));
    const last = Math.min(this.#unitCount, first + most);
    return Math.min(this.#next(false, first, last) * this.unit, this.length) - offset;
  }

  /** The first unit from `unit` on that is dirty (or clean), `end` when there is none before. */
  #next(dirty: boolean, unit: number, end: number): number {
    const passed = dirty ? 'clean' : 'dirty';
    for (let at = unit; at < end; ) {
      const index = Math.floor(at / PAGE_UNITS);
      const start = index * PAGE_UNITS;
      const pageEnd = Math.min(end, start + PAGE_UNITS);
      const page = this.#pages[index];
      if (typeof page === 'object') {
        const found = start + nextBit(page, dirty, { from: at - start, end: pageEnd - start });
        if (found < pageEnd) return found;
      } else if (page !== passed) return at;
      at = pageEnd;
    }
    return Math.max(unit, end);
  }

  set(offset: number, length: number): void {
    this.#change(offset, length, true);
  }

  clear(offset: number, length: number): void {
    this.#change(offset, length, false);
  }

  #change(offset: number, length: number, dirty: boolean): void {
    const first = Math.floor(offset / this.unit);
    const end = Math.min(this.#unitCount, Math.ceil((offset + length) / this.unit));
    for (let unit = first; unit < end; ) {
      const index = Math.floor(unit / PAGE_UNITS);
      const pageEnd = Math.min((index + 1) * PAGE_UNITS, this.#unitCount, end);
      const wholePage =
        unit === index * PAGE_UNITS &&
        pageEnd === Math.min((index + 1) * PAGE_UNITS, this.#unitCount);
      if (wholePage) this.#changePage(index, dirty);
      else this.#changeBits(index, { from: unit, end: pageEnd }, dirty);
      unit = pageEnd;
    }
  }

  #changePage(index: number, dirty: boolean): void {
    const count = Math.min(PAGE_UNITS, this.#unitCount - index * PAGE_UNITS);
    const before = this.#dirtyIn(index, count);
    this.#pages[index] = dirty ? 'dirty' : 'clean';
    this.#dirtyUnits += (dirty ? count : 0) - before;
  }

  #dirtyIn(index: number, count: number): number {
    const page = this.#pages[index];
    if (typeof page !== 'object') return page === 'dirty' ? count : 0;
    return changeBits(page, { from: 0, end: count }, false);
  }

  #changeBits(index: number, units: Bits, dirty: boolean): void {
    let page = this.#pages[index];
    assert(page !== undefined, `unit ${units.from} is beyond the bitmap`);
    if (typeof page === 'string') {
      if (page === (dirty ? 'dirty' : 'clean')) return;
      page = new Uint32Array(PAGE_UNITS / 32).fill(page === 'dirty' ? 0xffff_ffff : 0);
      this.#pages[index] = page;
    }
    const start = index * PAGE_UNITS;
    const changed = changeBits(page, { from: units.from - start, end: units.end - start }, dirty);
    this.#dirtyUnits += dirty ? changed : -changed;
  }
}

interface Bits {
  readonly from: number;
  readonly end: number;
}

/** The first bit that is set (or clear); `end` when there is none. A word at a time. */
function nextBit(words: Uint32Array, set: boolean, { from, end }: Bits): number {
  for (let at = from; at < end; at = (at | 31) + 1) {
    const word = words[at >>> 5] ?? 0;
    const bits = (set ? word : ~word) >>> (at & 31);
    if (bits !== 0) return Math.min(end, at + 31 - Math.clz32(bits & -bits));
  }
  return end;
}

/** Sets or clears bits; gives how many were not so before. */
function changeBits(words: Uint32Array, { from, end }: Bits, set: boolean): number {
  let changed = 0;
  for (let at = from; at < end; at = (at | 31) + 1) {
    const before = words[at >>> 5] ?? 0;
    const above = end - at + (at & 31);
    const mask = (0xffff_ffff << (at & 31)) & (above >= 32 ? 0xffff_ffff : ~(0xffff_ffff << above));
    const after = (set ? before | mask : before & ~mask) >>> 0;
    changed += bitCount(before ^ after);
    words[at >>> 5] = after;
  }
  return changed;
}

function bitCount(word: number): number {
  const pairs = word - ((word >>> 1) & 0x5555_5555);
  const nibbles = (pairs & 0x3333_3333) + ((pairs >>> 2) & 0x3333_3333);
  return Math.imul((nibbles + (nibbles >>> 4)) & 0x0f0f_0f0f, 0x0101_0101) >>> 24;
}
