// SPDX-License-Identifier: Apache-2.0
// Bits in three levels: pages of 32,768 bits (4 KiB), tables of 4096 pages, and the tables.
//
// A page or table exists only where its bits are mixed: all clean it is absent, all dirty it is the
// word `dirty`, and it is folded back as soon as its bits have become equal. So neither a terabyte
// at 512 bytes granularity, nor a copy that goes through it piece by piece, costs the memory for
// its bits, and a range of any length is filled in steps of whole tables. The last page and table,
// which the size cuts short, hold their bits. Bits past `size` are always clear. The number of set
// bits is kept at all times.

import { isZero } from '../../codec/index.js';

const PAGE_BITS = 32_768;
const PAGE_WORDS = PAGE_BITS / 32;
const PAGE_BYTES = PAGE_BITS / 8;
/** Of a page that has hardly any bits yet. */
const FIRST_WORDS = 8;
const TABLE_PAGES = 4096;
const TABLE_BITS = TABLE_PAGES * PAGE_BITS;

export interface BitRun {
  readonly first: number;
  /** Number of bits. */
  readonly length: number;
}

/** Bits [from, to). */
interface Part {
  readonly from: number;
  readonly to: number;
}

/** A page, or what holds pages. */
interface Bits<Self> {
  /** Number of bits that are set. */
  readonly count: number;
  get(bit: number): boolean;
  fill(part: Part, value: boolean): void;
  /** The first bit of the part with the value, or its end. */
  next(part: Part, value: boolean): number;
  /** Sets what is set in the other. */
  merge(other: Self): void;
  /** Sets what is set in the bytes, the lowest bit of each first; `first` is a multiple of 32. */
  load(first: number, bytes: Uint8Array): void;
  clone(): Self;
}

function popcount(word: number): number {
  let bits = word - ((word >>> 1) & 0x55555555);
  bits = (bits & 0x33333333) + ((bits >>> 2) & 0x33333333);
  return Math.imul((bits + (bits >>> 4)) & 0x0f0f0f0f, 0x01010101) >>> 24;
}

/** Words behind the last that was ever set are not there: most nodes need a few only. */
class Page implements Bits<Page> {
  words: Uint32Array;
  count: number;

  constructor(words: Uint32Array, count: number) {
    this.words = words;
    this.count = count;
  }

  static filled(value: boolean): Page {
    if (!value) return new Page(new Uint32Array(FIRST_WORDS), 0);
    return new Page(new Uint32Array(PAGE_WORDS).fill(0xffffffff), PAGE_BITS);
  }

  get(bit: number): boolean {
    return (((this.words[bit >>> 5] ?? 0) >>> (bit & 31)) & 1) === 1;
  }

  fill({ from, to }: Part, value: boolean): void {
    for (let bit = from; bit < to; ) {
      const word = bit >>> 5;
      const low = bit & 31;
      const bits = Math.min(32 - low, to - bit);
      const mask = bits === 32 ? 0xffffffff : ((1 << bits) - 1) << low;
      const before = this.words[word] ?? 0;
      this.#put(word, before, value ? before | mask : before & ~mask);
      bit += bits;
    }
  }

  merge({ words }: Page): void {
    for (let word = 0; word < words.length; word += 1) {
      const before = this.words[word] ?? 0;
      this.#put(word, before, before | (words[word] ?? 0));
    }
  }

  load(first: number, bytes: Uint8Array): void {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    for (let at = 0; at < bytes.length; at += 4) {
      const word = (first >>> 5) + (at >>> 2);
      const before = this.words[word] ?? 0;
      this.#put(word, before, before | view.getUint32(at, true));
    }
  }

  #put(word: number, before: number, after: number): void {
    if (before === after >>> 0) return;
    if (word >= this.words.length) this.#grow(word);
    this.words[word] = after;
    this.count += popcount(after) - popcount(before);
  }

  #grow(word: number): void {
    const grown = new Uint32Array(Math.min(PAGE_WORDS, Math.max(word + 1, 2 * this.words.length)));
    grown.set(this.words);
    this.words = grown;
  }

  next({ from, to }: Part, value: boolean): number {
    const flip = value ? 0 : 0xffffffff;
    let word = from >>> 5;
    let bits = (((this.words[word] ?? 0) ^ flip) & (0xffffffff << (from & 31))) >>> 0;
    while (bits === 0) {
      word += 1;
      if (word * 32 >= to) return to;
      bits = ((this.words[word] ?? 0) ^ flip) >>> 0;
    }
    return Math.min(word * 32 + (31 - Math.clz32(bits & -bits)), to);
  }

  clone(): Page {
    return new Page(this.words.slice(), this.count);
  }

  /** Words are little-endian on every machine that Node runs on but s390x. */
  bytes(): Uint8Array {
    const whole = new Uint32Array(PAGE_WORDS);
    whole.set(this.words);
    return new Uint8Array(whole.buffer);
  }
}

/** Parts of one size, each mixed, `dirty`, or absent: clean. */
class Level<Mixed extends Bits<Mixed>> implements Bits<Level<Mixed>> {
  readonly #partBits: number;
  readonly #filled: (value: boolean) => Mixed;
  readonly #parts = new Map<number, Mixed | 'dirty'>();
  count = 0;

  /** `filled` makes a part with all of its bits alike. */
  constructor(partBits: number, filled: (value: boolean) => Mixed) {
    this.#partBits = partBits;
    this.#filled = filled;
  }

  part(index: number): Mixed | 'dirty' | undefined {
    return this.#parts.get(index);
  }

  get(bit: number): boolean {
    const part = this.#parts.get(Math.floor(bit / this.#partBits));
    return typeof part === 'object' ? part.get(bit % this.#partBits) : part === 'dirty';
  }

  fill({ from, to }: Part, value: boolean): void {
    const bits = this.#partBits;
    for (let bit = from; bit < to; ) {
      const index = Math.floor(bit / bits);
      const start = index * bits;
      this.#fillPart(index, { from: bit - start, to: Math.min(to - start, bits) }, value);
      bit = start + bits;
    }
  }

  #fillPart(index: number, range: Part, value: boolean): void {
    const part = this.#parts.get(index);
    if (part === (value ? 'dirty' : undefined)) return;
    const before = this.#countOf(part);
    if (range.from === 0 && range.to === this.#partBits) {
      this.#put(index, value ? 'dirty' : undefined, before);
      return;
    }
    const mixed = typeof part === 'object' ? part : this.#filled(part === 'dirty');
    mixed.fill(range, value);
    this.#put(index, mixed, before);
  }

  /** `before`: how many bits of the part were set. */
  #put(index: number, part: Mixed | 'dirty' | undefined, before: number): void {
    const count = this.#countOf(part);
    if (count === 0 || part === undefined) this.#parts.delete(index);
    else this.#parts.set(index, count === this.#partBits ? 'dirty' : part);
    this.count += count - before;
  }

  #countOf(part: Mixed | 'dirty' | undefined): number {
    return typeof part === 'object' ? part.count : part === 'dirty' ? this.#partBits : 0;
  }

  next({ from, to }: Part, value: boolean): number {
    const bits = this.#partBits;
    for (let bit = from; bit < to; ) {
      const index = Math.floor(bit / bits);
      const start = index * bits;
      const part = this.#parts.get(index);
      if (typeof part === 'object') {
        const end = Math.min(to - start, bits);
        const found = part.next({ from: bit - start, to: end }, value);
        if (found < end) return start + found;
      } else if ((part === 'dirty') === value) {
        return bit;
      }
      bit = start + bits;
    }
    return to;
  }

  merge(other: Level<Mixed>): void {
    for (const [index, theirs] of other.#parts) {
      const part = this.#parts.get(index);
      const before = this.#countOf(part);
      if (typeof part === 'object' && theirs !== 'dirty') {
        part.merge(theirs);
        this.#put(index, part, before);
      } else if (part !== 'dirty') {
        this.#put(index, theirs === 'dirty' ? 'dirty' : theirs.clone(), before);
      }
    }
  }

  load(first: number, bytes: Uint8Array): void {
    const partBits = this.#partBits;
    for (let at = 0; at < bytes.length; ) {
      const index = Math.floor((first + at * 8) / partBits);
      const start = first + at * 8 - index * partBits;
      const length = Math.min(bytes.length - at, (partBits - start) / 8);
      const slice = bytes.subarray(at, at + length);
      at += length;
      const part = this.#parts.get(index);
      if (part === 'dirty' || isZero(slice)) continue;
      const before = this.#countOf(part);
      const mixed = part ?? this.#filled(false);
      mixed.load(start, slice);
      this.#put(index, mixed, before);
    }
  }

  clone(): Level<Mixed> {
    const copy = new Level(this.#partBits, this.#filled);
    for (const [index, part] of this.#parts) {
      copy.#parts.set(index, part === 'dirty' ? part : part.clone());
    }
    copy.count = this.count;
    return copy;
  }
}

function filledTable(value: boolean): Level<Page> {
  const table = new Level(PAGE_BITS, (filled) => Page.filled(filled));
  if (value) table.fill({ from: 0, to: TABLE_BITS }, true);
  return table;
}

export class BitPages {
  #size: number;
  #tables = new Level(TABLE_BITS, filledTable);

  /** `size` is the number of bits, all of them clear. */
  constructor(size: number) {
    this.#size = size;
  }

  get size(): number {
    return this.#size;
  }

  /** Number of bits that are set. */
  get count(): number {
    return this.#tables.count;
  }

  get(bit: number): boolean {
    return this.#tables.get(bit);
  }

  /** Sets or clears bits [first, first + length) as far as they are there. */
  fill(first: number, length: number, value: boolean): void {
    this.#tables.fill({ from: first, to: Math.min(first + length, this.#size) }, value);
  }

  /** The first bit with the value at or after `from` and before `limit`, or `limit`. */
  next(from: number, limit: number, value: boolean): number {
    const to = Math.min(limit, this.#size);
    const found = this.#tables.next({ from, to }, value);
    return found < to ? found : limit;
  }

  /** The first run of set bits at or after `from`, cut at `limit`, or null. */
  nextRun(from: number, limit: number): BitRun | null {
    const end = Math.min(limit, this.#size);
    const first = this.next(from, end, true);
    if (first >= end) return null;
    return { first, length: this.next(first, end, false) - first };
  }

  /** Sets what is set in `other`, which is of the same size. */
  merge(other: BitPages): void {
    this.#tables.merge(other.#tables);
  }

  /**
   * Sets what is set in the bytes, the lowest bit of each first; `first` is a multiple of 32, as
   * is the number of bits in `bytes`. What lies past `size` is left out.
   */
  load(first: number, bytes: Uint8Array): void {
    const room = this.#size - first;
    if (room <= 0) return;
    if (room >= bytes.length * 8) {
      this.#tables.load(first, bytes);
      return;
    }
    const there = Math.ceil(room / 32) * 4;
    const own = bytes.slice(0, there);
    for (let bit = room; bit < there * 8; bit += 1) {
      own[bit >>> 3] = (own[bit >>> 3] ?? 0) & ~(1 << (bit & 7));
    }
    this.#tables.load(first, own);
  }

  /**
   * The bits in pieces of `length` bytes, the lowest bit of each first: only those with bits set,
   * in order. A piece of which all bits are set, as far as they are there, is `dirty`.
   */
  *pieces(length: number): Generator<{ index: number; bytes: Uint8Array | 'dirty' }> {
    const bits = length * 8;
    for (let from = this.next(0, this.#size, true); from < this.#size; ) {
      const index = Math.floor(from / bits);
      const start = index * bits;
      const end = Math.min(this.#size, start + bits);
      const isDirty = this.next(start, end, false) === end;
      yield { index, bytes: isDirty ? 'dirty' : this.#bytes(start, length) };
      from = this.next(end, this.#size, true);
    }
  }

  /** `first` is a multiple of the length or of a page. */
  #bytes(first: number, length: number): Uint8Array {
    const bytes = new Uint8Array(length);
    for (let at = 0; at < length; ) {
      const bit = first + at * 8;
      const skipped = (bit % PAGE_BITS) / 8;
      const count = Math.min(length - at, PAGE_BYTES - skipped);
      const page = this.#page(Math.floor(bit / PAGE_BITS));
      if (page === 'dirty') bytes.fill(0xff, at, at + count);
      else if (page !== undefined) bytes.set(page.bytes().subarray(skipped, skipped + count), at);
      at += count;
    }
    return bytes;
  }

  /** New bits are clear. */
  resize(size: number): void {
    if (size < this.#size) this.fill(size, this.#size - size, false);
    this.#size = size;
  }

  /** The bits in order, the lowest of each byte first; bytes up to a multiple of 8, at least 8. */
  *parts(): Generator<Uint8Array> {
    const pageCount = Math.max(1, Math.ceil(this.#size / PAGE_BITS));
    const clean = new Uint8Array(PAGE_BYTES);
    const dirty = new Uint8Array(PAGE_BYTES).fill(0xff);
    for (let index = 0; index < pageCount; index += 1) {
      const bits = Math.min(PAGE_BITS, this.#size - index * PAGE_BITS);
      const bytes = Math.max(1, Math.ceil(bits / 64)) * 8;
      const page = this.#page(index);
      const all = page === 'dirty' ? dirty : page === undefined ? clean : page.bytes();
      yield all.subarray(0, bytes);
    }
  }

  #page(index: number): Page | 'dirty' | undefined {
    const table = this.#tables.part(Math.floor(index / TABLE_PAGES));
    return typeof table === 'object' ? table.part(index % TABLE_PAGES) : table;
  }

  clone(): BitPages {
    const copy = new BitPages(this.#size);
    copy.#tables = this.#tables.clone();
    return copy;
  }
}
