// SPDX-License-Identifier: Apache-2.0
// The L2 tables that one L1 table names, read in long runs and each distinct one once.
//
// Tables that lie in holes of the file or beyond its end hold nothing and are not read; how much
// may be read to find nothing is bounded. Hostile images let any number of L1 entries name one
// table: `visits()` says how often, so that a sweep looks at it once and counts it so often.

import { IMAGE_LIMITS } from '../../../../base/index.js';
import type { Eventually } from '../../../../base/index.js';
import type { Child } from '../../../../block/index.js';
import { isZero } from '../../../../codec/index.js';
import { entryHostOffset } from '../entries.js';
import type { Qcow2Header } from '../header.js';
import { HoleReads } from '../hole-reads.js';
import { readWithin } from './refcounts-on-disk.js';

/** Bytes of adjacent tables that one read takes. */
const READ_AHEAD = 1024 * 1024;

interface Range {
  start: number;
  end: number;
}

export class L2Tables {
  readonly entries: number;
  readonly #file: Pick<Child, 'node'>;
  readonly #l1: DataView;
  readonly #tableBytes: number;
  readonly #fileLength: number;
  /** By L1 entry: its L2 table holds nothing. */
  readonly #isEmpty: Uint8Array;
  readonly #holeReads: HoleReads;
  /** The hole and the data of the file that were met last: tables in the hole are all zero. */
  #hole: Range = { start: 0, end: 0 };
  #data: Range = { start: 0, end: 0 };
  #ahead: { readonly offset: number; readonly bytes: Uint8Array } | null = null;
  /** Offsets of all tables in order, and whether each was visited; null: all differ. */
  #tally: { readonly offsets: Float64Array; readonly visited: Uint8Array } | null;

  constructor(file: Pick<Child, 'node'>, header: Pick<Qcow2Header, 'geometry'>, l1: DataView) {
    this.#file = file;
    this.#l1 = l1;
    this.#tableBytes = header.geometry.clusterSize;
    this.#fileLength = file.node.length;
    this.entries = l1.byteLength / 8;
    this.#isEmpty = new Uint8Array(this.entries);
    this.#holeReads = new HoleReads({
      what: `L2 tables (l1_size ${this.entries})`,
      file: file.node,
      stored: l1.byteLength,
      most: IMAGE_LIMITS.checkEmptyTableBytes,
    });
    this.#tally = this.#makeTally();
  }

  hi(index: number): number {
    return this.#l1.getUint32(index * 8);
  }

  lo(index: number): number {
    return this.#l1.getUint32(index * 8 + 4);
  }

  /** Offset of the table of an L1 entry, 0 when there is none. */
  offset(index: number): number {
    return entryHostOffset(this.hi(index), this.lo(index));
  }

  /** How many L1 entries name this table, when it is asked for the first time; 0 afterwards. */
  visits(offset: number): number {
    if (this.#tally === null) return 1;
    const { offsets, visited } = this.#tally;
    const first = lowerBound(offsets, offset);
    if (visited[first] === 1) return 0;
    visited[first] = 1;
    let end = first;
    while (offsets[end] === offset) end += 1;
    return end - first;
  }

  /** Every table may be visited again. */
  restart(): void {
    this.#tally?.visited.fill(0);
  }

  /**
   * The bytes of a table, valid until the next call; null when it holds nothing. What is changed
   * in them is seen by later calls.
   */
  read(index: number): Eventually<Uint8Array | null> {
    if (this.#isEmpty[index] === 1) return null;
    const offset = this.offset(index);
    const end = Math.min(this.#fileLength, offset + this.#tableBytes);
    if (offset >= this.#fileLength || (offset >= this.#hole.start && end <= this.#hole.end)) {
      this.#isEmpty[index] = 1;
      return null;
    }
    const ahead = this.#ahead;
    if (
      ahead !== null &&
      offset >= ahead.offset &&
      offset + this.#tableBytes <= ahead.offset + ahead.bytes.length
    ) {
      return this.#take(ahead.bytes, { index, at: offset - ahead.offset });
    }
    return this.#load(index, offset);
  }

  async #load(index: number, offset: number): Promise<Uint8Array | null> {
    if (offset < this.#data.start || offset >= this.#data.end) {
      const length = this.#fileLength - offset;
      const status = await this.#file.node.blockStatus(offset, length, true);
      const extent = { start: offset, end: offset + status.length };
      if (!status.zero) this.#data = extent;
      else {
        this.#hole = extent;
        // It may begin in a hole and end in data.
        if (Math.min(this.#fileLength, offset + this.#tableBytes) <= extent.end) {
          this.#isEmpty[index] = 1;
          return null;
        }
      }
    }
    const bytes = new Uint8Array(this.#adjacent(index, offset) * this.#tableBytes);
    await readWithin(this.#file, offset, bytes);
    this.#ahead = { offset, bytes };
    return this.#take(bytes, { index, at: 0 });
  }

  /** Tables from this one on that follow each other in L1 and in the data of the file. */
  #adjacent(index: number, offset: number): number {
    const most = Math.min(
      Math.max(1, READ_AHEAD / this.#tableBytes),
      Math.floor((this.#data.end - offset) / this.#tableBytes),
      this.entries - index,
    );
    let count = 1;
    while (count < most && this.offset(index + count) === offset + count * this.#tableBytes) {
      count += 1;
    }
    return count;
  }

  #take(bytes: Uint8Array, place: { index: number; at: number }): Uint8Array | null {
    const table = bytes.subarray(place.at, place.at + this.#tableBytes);
    if (!isZero(table)) return table;
    this.#isEmpty[place.index] = 1;
    this.#holeReads.add(this.offset(place.index), table.length);
    return null;
  }

  #makeTally(): { offsets: Float64Array; visited: Uint8Array } | null {
    const offsets = new Float64Array(this.entries);
    let isRising = true;
    let last = 0;
    for (let index = 0; index < this.entries; index += 1) {
      const offset = this.offset(index);
      offsets[index] = offset;
      if (offset === 0) continue;
      isRising &&= offset > last;
      last = offset;
    }
    if (isRising) return null;
    return { offsets: offsets.sort(), visited: new Uint8Array(this.entries) };
  }
}

/** Index of the first number that is not below `wanted`. */
function lowerBound(sorted: Float64Array, wanted: number): number {
  let low = 0;
  let high = sorted.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((sorted[middle] ?? 0) < wanted) low = middle + 1;
    else high = middle;
  }
  return low;
}
