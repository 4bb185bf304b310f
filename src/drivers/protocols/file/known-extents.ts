// SPDX-License-Identifier: Apache-2.0
// Where data and holes are in a file that nobody can change: the host is asked once.
//
// Clusters in random order ask for places in no order, so a list is made from the begin of the
// file on, a few extents further with each question that it does not answer; one that lies beyond
// it is asked of the host itself, and kept until the next of these.

import { must } from '../../../base/index.js';
import type { HostFile } from '../../../host/index.js';

/** Extents that the list grows by with one question. */
const STEP = 16;
/** Extents that are listed: 8 bytes each. */
const MOST = 2 ** 20;

export class KnownExtents {
  readonly #file: HostFile;
  /** Where extents end, in order; data and holes take turns. */
  #ends = new Float64Array(64);
  #count = 0;
  #firstIsHole = false;
  /** The extent found last. */
  #from = 0;
  #until = 0;
  #isHole = false;

  constructor(file: HostFile) {
    this.#file = file;
  }

  /** Bytes of data from `offset` on, or of a hole as a negative number; past the end endless. */
  at(offset: number): number {
    if (offset < this.#from || offset >= this.#until) this.#find(offset);
    const length = this.#until - offset;
    return this.#isHole ? -length : length;
  }

  #find(offset: number): void {
    const size = this.#file.size();
    if (offset >= size) {
      this.#found(size, Infinity, true);
      return;
    }
    if (offset >= this.#listed) this.#listMore(size);
    if (offset < this.#listed) {
      const index = this.#indexOf(offset);
      const from = index === 0 ? 0 : this.#endOf(index - 1);
      this.#found(from, this.#endOf(index), this.#firstIsHole === (index % 2 === 0));
      return;
    }
    const { kind, length } = this.#file.extent(offset, size - offset);
    this.#found(offset, offset + length, kind === 'hole');
  }

  #found(from: number, until: number, isHole: boolean): void {
    this.#from = from;
    this.#until = until;
    this.#isHole = isHole;
  }

  /** End of the list, in bytes. */
  get #listed(): number {
    return this.#count === 0 ? 0 : this.#endOf(this.#count - 1);
  }

  #endOf(index: number): number {
    return must(this.#ends[index], 'listed extent');
  }

  #listMore(size: number): void {
    for (let step = 0; step < STEP && this.#count < MOST; step += 1) {
      const start = this.#listed;
      if (start >= size) return;
      const { kind, length } = this.#file.extent(start, size - start);
      const isHole = kind === 'hole';
      if (this.#count === 0) this.#firstIsHole = isHole;
      const last = this.#count - 1;
      // The host may tell of one extent in parts.
      if (last >= 0 && isHole === (this.#firstIsHole === (last % 2 === 0))) {
        this.#ends[last] = start + length;
        continue;
      }
      if (this.#count === this.#ends.length) this.#grow();
      this.#ends[this.#count] = start + length;
      this.#count += 1;
    }
  }

  #grow(): void {
    const ends = new Float64Array(2 * this.#ends.length);
    ends.set(this.#ends);
    this.#ends = ends;
  }

  /** The first extent that ends after `offset`. */
  #indexOf(offset: number): number {
    let low = 0;
    let high = this.#count - 1;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#endOf(middle) > offset) high = middle;
      else low = middle + 1;
    }
    return low;
  }
}
