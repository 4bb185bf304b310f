// SPDX-License-Identifier: Apache-2.0
// A dirty bitmap: which parts of a node were written, in units of its granularity.
//
// Setting rounds outwards, clearing rounds inwards but for the end of the node: a bit is only
// cleared when all its bytes are. A disabled bitmap records no writes but can be changed by hand.
// Bytes that a shrinking node loses are dirty once it grows again: they read otherwise than before.

import { assert, BITMAP_LIMITS } from '../../base/index.js';
import { BitPages } from './bit-pages.js';

export interface DirtyRange {
  /** Bytes. */
  readonly offset: number;
  readonly length: number;
}

export interface DirtyBitmapOptions {
  /** Null for one that only its owner knows (jobs). */
  readonly name: string | null;
  /** Bytes of the node. */
  readonly size: number;
  /** Bytes for each bit: a power of two from 512 to 2^31. */
  readonly granularity: number;
  readonly enabled?: boolean;
  readonly persistent?: boolean;
}

export function isGranularity(value: number): boolean {
  const { minGranularity, maxGranularity } = BITMAP_LIMITS;
  return value >= minGranularity && value <= maxGranularity && Number.isInteger(Math.log2(value));
}

export class DirtyBitmap {
  /** Changes only when a successor takes over. */
  name: string | null;
  readonly granularity: number;
  persistent: boolean;
  /** Records writes of its node. */
  enabled: boolean;
  /** Stored content could not be trusted: only removing is allowed. */
  inconsistent = false;
  /** Stored in an image that is read-only: its bits stay as they are. */
  readOnly = false;
  /** Taken off the image by a transaction that is not over: not stored if the node closes. */
  leaving = false;
  /** Records in the place of this one while that is frozen. */
  successor: DirtyBitmap | null = null;
  /** In use by these jobs or exports. */
  readonly #users = new Set<string>();
  #size: number;
  /** The largest size of the node since everything was cleared, in bytes. */
  #peak: number;
  #bits: BitPages;

  constructor(options: DirtyBitmapOptions) {
    assert(isGranularity(options.granularity), 'granularity is a power of two within its limits');
    this.name = options.name;
    this.granularity = options.granularity;
    this.persistent = options.persistent ?? false;
    this.enabled = options.enabled ?? true;
    this.#size = options.size;
    this.#peak = options.size;
    this.#bits = new BitPages(Math.ceil(options.size / options.granularity));
  }

  /** Bytes of the node. */
  get size(): number {
    return this.#size;
  }

  /** Units that are dirty times the granularity, as query commands count. */
  get count(): number {
    return this.#bits.count * this.granularity;
  }

  get busy(): boolean {
    return this.#users.size > 0;
  }

  get users(): readonly string[] {
    return [...this.#users];
  }

  /** Writes are recorded, by this bitmap or by its successor. */
  get recording(): boolean {
    return this.enabled || this.successor?.enabled === true;
  }

  /** Marks the bitmap as in use until the result is called. */
  hold(user: string): () => void {
    assert(!this.#users.has(user), `bitmap is held by '${user}' already`);
    this.#users.add(user);
    return () => void this.#users.delete(user);
  }

  set(offset: number, length: number): void {
    if (length <= 0) return;
    const first = Math.floor(offset / this.granularity);
    const end = Math.ceil((offset + length) / this.granularity);
    this.#bits.fill(first, end - first, true);
  }

  clear(offset: number, length: number): void {
    const first = Math.ceil(offset / this.granularity);
    const bytesEnd = offset + length;
    const end =
      bytesEnd >= this.#size ? this.#bits.size : Math.floor(bytesEnd / this.granularity);
    if (end > first) this.#bits.fill(first, end - first, false);
  }

  clearAll(): void {
    this.#bits = new BitPages(this.#bits.size);
    this.#peak = this.#size;
  }

  /** Takes over the bits of `other`, which is as large; `other` is not used any more. */
  adopt(other: DirtyBitmap): void {
    assert(other.#size === this.#size, 'adopted bits are of one size');
    assert(other.granularity === this.granularity, 'adopted bits are of one granularity');
    this.#bits = other.#bits;
    this.#peak = other.#peak;
  }

  /** The bits as stored: the first of each byte is the lowest, in parts of 4 KiB at most. */
  parts(): Iterable<Uint8Array> {
    return this.#bits.parts();
  }

  /** The bits as stored in pieces of `length` bytes: those that have any (see BitPages.pieces). */
  pieces(length: number): Iterable<{ index: number; bytes: Uint8Array | 'dirty' }> {
    return this.#bits.pieces(length);
  }

  /** Sets bits from their stored form; `first` is a multiple of 32. */
  load(first: number, bytes: Uint8Array): void {
    this.#bits.load(first, bytes);
  }

  /** Sets `count` bits from `first` on, as far as they are there. */
  loadDirty(first: number, count: number): void {
    this.#bits.fill(first, count, true);
  }

  isDirty(offset: number): boolean {
    return this.#bits.get(Math.floor(offset / this.granularity));
  }

  /** The first dirty bytes in [offset, offset + length), or null. */
  nextDirty(offset: number, length: number = this.#size - offset): DirtyRange | null {
    const end = Math.min(offset + length, this.#size);
    if (end <= offset) return null;
    const first = Math.floor(offset / this.granularity);
    const run = this.#bits.nextRun(first, Math.ceil(end / this.granularity));
    if (run === null) return null;
    const from = Math.max(offset, run.first * this.granularity);
    const to = Math.min(end, (run.first + run.length) * this.granularity);
    return { offset: from, length: to - from };
  }

  /** The first offset in the range that is not dirty, or null. */
  nextClean(offset: number, length: number = this.#size - offset): number | null {
    const end = Math.min(offset + length, this.#size);
    if (end <= offset) return null;
    const limit = Math.ceil(end / this.granularity);
    const bit = this.#bits.next(Math.floor(offset / this.granularity), limit, false);
    return bit >= limit ? null : Math.max(offset, bit * this.granularity);
  }

  /** Adds what is dirty in `other`; granularities may differ, sizes may not. */
  merge(other: DirtyBitmap): void {
    assert(other.#size === this.#size, 'merged bitmaps are of one size');
    if (other === this) return;
    this.#peak = Math.max(this.#peak, other.#peak);
    if (other.granularity === this.granularity) {
      this.#bits.merge(other.#bits);
      return;
    }
    for (let run = other.nextDirty(0); run !== null; ) {
      this.set(run.offset, run.length);
      run = other.nextDirty(run.offset + run.length);
    }
  }

  /** A private copy with the same bits. */
  copy(name: string | null): DirtyBitmap {
    const copy = new DirtyBitmap({
      name,
      size: this.#size,
      granularity: this.granularity,
      enabled: this.enabled,
    });
    copy.#bits = this.#bits.clone();
    copy.#peak = this.#peak;
    return copy;
  }

  /** Follows its node. New bytes are clean; those it had before are dirty when it records. */
  resize(size: number): void {
    const before = this.#size;
    this.#size = size;
    this.#bits.resize(Math.ceil(size / this.granularity));
    if (this.enabled) this.set(before, Math.min(size, this.#peak) - before);
    this.#peak = Math.max(this.#peak, size);
  }
}
