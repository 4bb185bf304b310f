// SPDX-License-Identifier: Apache-2.0
// Which metadata structure a host range would hit: header, L1, refcount table, L2 tables, refcount
// blocks, the table of snapshots and their L1 tables. Asked before every write to a place that the
// image's own tables name and before every newly allocated cluster is used, so that hostile or
// damaged refcounts never let data or tables overwrite each other.
//
// The offsets found at open are kept in sorted arrays (a hostile L1 may hold millions), those added
// later in sets. L2 tables and refcount blocks are one cluster each and aligned.

import type { Geometry } from '../layout.js';

export interface OverlapSource {
  readonly geometry: Geometry;
  readonly l1Offset: number;
  readonly l1: Uint8Array;
  readonly l1View: DataView;
  readonly refcountTableOffset: number;
  readonly refcountTable: Uint8Array;
  readonly refcountTableView: DataView;
}

/** Bytes of the image file. */
export interface HostRange {
  readonly offset: number;
  readonly length: number;
}

const TWO_32 = 0x1_0000_0000;

export class Overlaps {
  readonly #source: OverlapSource;
  #l2 = new OffsetSet(new Float64Array(0));
  #blocks = new OffsetSet(new Float64Array(0));
  #snapshotTable: HostRange = { offset: 0, length: 0 };
  #inactiveL1 = new RangeSet([]);
  #bitmaps: { readonly offset: number; readonly size: number } | null = null;

  constructor(source: OverlapSource) {
    this.#source = source;
    this.rebuild();
  }

  /** Reads the offsets from the top-level tables again. */
  rebuild(): void {
    const { l1View, refcountTableView } = this.#source;
    this.#l2 = new OffsetSet(offsetsOf(l1View, 0x00ff_ffff));
    this.#blocks = new OffsetSet(offsetsOf(refcountTableView, 0xffff_ffff));
  }

  /** Where the snapshots are listed and their L1 tables lie; those without a length are nowhere. */
  setSnapshots(table: HostRange, l1Tables: readonly HostRange[]): void {
    this.#snapshotTable = table;
    this.#inactiveL1 = new RangeSet(l1Tables);
  }

  addL2(offset: number): void {
    this.#l2.add(offset);
  }

  removeL2(offset: number): void {
    this.#l2.remove(offset);
  }

  addRefcountBlock(offset: number): void {
    this.#blocks.add(offset);
  }

  removeRefcountBlock(offset: number): void {
    this.#blocks.remove(offset);
  }

  /** Where the bitmap directory lies; null: there is none. */
  setBitmapDirectory(place: { readonly offset: number; readonly size: number } | null): void {
    this.#bitmaps = place;
  }

  /** Name of the first structure that [offset, offset + length) touches, or null. */
  hit(offset: number, length: number): string | null {
    const bitmaps = this.#bitmaps;
    if (bitmaps !== null && meets(offset, offset + length, bitmaps.offset, bitmaps.size)) {
      return 'the bitmap directory';
    }
    return this.hitBesideBitmaps(offset, length);
  }

  /** The same, the bitmap directory left out: for those who write that. */
  hitBesideBitmaps(offset: number, length: number): string | null {
    const source = this.#source;
    const clusterSize = source.geometry.clusterSize;
    const end = offset + length;
    if (offset < clusterSize) return 'the header';
    if (meets(offset, end, source.l1Offset, source.l1.length)) return 'the active L1 table';
    if (meets(offset, end, source.refcountTableOffset, source.refcountTable.length)) {
      return 'the refcount table';
    }
    const inactive = this.#snapshotsAt(offset, end);
    if (inactive !== null) return inactive;
    const first = offset - (offset % clusterSize);
    const range = { start: first, end, step: clusterSize };
    if (this.#l2.hasIn(range)) return 'an active L2 table';
    return this.#blocks.hasIn(range) ? 'a refcount block' : null;
  }

  /** The same for a table of one cluster that is itself registered as `kind`. */
  structureAt(offset: number, kind: 'L2 table' | 'refcount block'): string | null {
    const source = this.#source;
    const end = offset + source.geometry.clusterSize;
    if (offset < source.geometry.clusterSize) return 'the header';
    if (meets(offset, end, source.l1Offset, source.l1.length)) return 'the active L1 table';
    if (meets(offset, end, source.refcountTableOffset, source.refcountTable.length)) {
      return 'the refcount table';
    }
    const inactive = this.#snapshotsAt(offset, end);
    if (inactive !== null) return inactive;
    if (kind !== 'L2 table' && this.#l2.has(offset)) return 'an active L2 table';
    if (kind !== 'refcount block' && this.#blocks.has(offset)) return 'a refcount block';
    return null;
  }

  #snapshotsAt(offset: number, end: number): string | null {
    const table = this.#snapshotTable;
    if (meets(offset, end, table.offset, table.length)) return 'the snapshot table';
    return this.#inactiveL1.meets(offset, end) ? 'an inactive L1 table' : null;
  }
}

/** Ranges that may overlap each other, joined and in order. */
class RangeSet {
  readonly #starts: Float64Array;
  readonly #ends: Float64Array;

  constructor(ranges: readonly HostRange[]) {
    const sorted = ranges
      .filter(({ length }) => length > 0)
      .toSorted((left, right) => left.offset - right.offset);
    const starts: number[] = [];
    const ends: number[] = [];
    for (const { offset, length } of sorted) {
      const last = ends.length - 1;
      const end = offset + length;
      if (last >= 0 && offset <= (ends[last] ?? 0)) ends[last] = Math.max(ends[last] ?? 0, end);
      else {
        starts.push(offset);
        ends.push(end);
      }
    }
    this.#starts = Float64Array.from(starts);
    this.#ends = Float64Array.from(ends);
  }

  meets(offset: number, end: number): boolean {
    const ends = this.#ends;
    let low = 0;
    let high = ends.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((ends[middle] as number) <= offset) low = middle + 1;
      else high = middle;
    }
    return low < ends.length && (this.#starts[low] as number) < end;
  }
}

class OffsetSet {
  readonly #initial: Float64Array;
  readonly #added = new Set<number>();
  readonly #removed = new Set<number>();

  constructor(initial: Float64Array) {
    this.#initial = initial;
  }

  has(offset: number): boolean {
    return this.hasIn({ start: offset, end: offset + 1, step: 1 });
  }

  /** Whether there is one in [start, end) that is a multiple of `step`, as `start` is. */
  hasIn({ start, end, step }: { start: number; end: number; step: number }): boolean {
    for (let at = start; at < end; at += step) if (this.#added.has(at)) return true;
    const initial = this.#initial;
    for (let at = this.#firstFrom(start); at < initial.length; at += 1) {
      const offset = initial[at] as number;
      if (offset >= end) return false;
      if (offset % step === 0 && !this.#removed.has(offset)) return true;
    }
    return false;
  }

  /** Index of the first of the initial ones that is at `offset` or behind it. */
  #firstFrom(offset: number): number {
    const initial = this.#initial;
    let low = 0;
    let high = initial.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((initial[middle] as number) < offset) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  add(offset: number): void {
    this.#added.add(offset);
  }

  remove(offset: number): void {
    this.#added.delete(offset);
    this.#removed.add(offset);
  }
}

function offsetsOf(view: DataView, highMask: number): Float64Array {
  const count = Math.floor(view.byteLength / 8);
  let used = 0;
  for (let index = 0; index < count; index += 1) {
    if (view.getUint32(index * 8 + 4) !== 0 || view.getUint32(index * 8) !== 0) used += 1;
  }
  const offsets = new Float64Array(used);
  let next = 0;
  for (let index = 0; index < count; index += 1) {
    const hi = (view.getUint32(index * 8) & highMask) >>> 0;
    const lo = view.getUint32(index * 8 + 4);
    if (view.getUint32(index * 8) === 0 && lo === 0) continue;
    offsets[next] = hi * TWO_32 + (lo - (lo % 512));
    next += 1;
  }
  return offsets.sort();
}

function meets(offset: number, end: number, start: number, length: number): boolean {
  return offset < start + length && end > start;
}
