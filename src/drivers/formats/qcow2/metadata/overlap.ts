// SPDX-License-Identifier: Apache-2.0
// Which metadata structure a host range would hit: header, L1, refcount table, L2 tables, refcount
// blocks, the table of snapshots and their L1 tables. Asked before every write to a place that the
// image's own tables name and before every newly allocated cluster is used, so that hostile or
// damaged refcounts never let data or tables overwrite each other. `guarded` says which structures
// are looked for; what reads or frees asks for all that are known in memory.
//
// The offsets found at open are kept in sorted arrays (a hostile L1 may hold millions), those added
// later in sets. L2 tables and refcount blocks are one cluster each and aligned.

import { isZero } from '../../../../codec/index.js';
import type { Geometry } from '../layout.js';
import { DEFAULT_POLICIES, Guarded, OVERLAP_MODES } from './policies.js';

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
  /** L2 tables of snapshots, where those are looked for. */
  #inactiveL2 = new OffsetSet(new Float64Array(0));
  /** Set of `Guarded`. */
  guarded: number = DEFAULT_POLICIES.guarded;
  /** The LUKS header, which goes with that of the image. */
  #cryptHeader: HostRange = { offset: 0, length: 0 };
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

  /** In any order; several snapshots may name the same. */
  setInactiveL2(offsets: Float64Array): void {
    this.#inactiveL2 = new OffsetSet(offsets.sort());
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

  setCryptHeader(place: HostRange): void {
    this.#cryptHeader = place;
  }

  /** Where the bitmap directory lies; null: there is none. */
  setBitmapDirectory(place: { readonly offset: number; readonly size: number } | null): void {
    this.#bitmaps = place;
  }

  /** Name of the first guarded structure that [offset, offset + length) touches, or null. */
  hit(offset: number, length: number): string | null {
    return this.#find(offset, length, this.guarded);
  }

  /** The same, the bitmap directory left out: for those who write that. */
  hitBesideBitmaps(offset: number, length: number): string | null {
    return this.#find(offset, length, this.guarded & ~Guarded.bitmapDirectory);
  }

  /** The same of all that is known, whatever is guarded: for those who free. */
  isMetadata(offset: number, length: number): boolean {
    return this.#find(offset, length, OVERLAP_MODES.cached) !== null;
  }

  /**
   * The same for a table of one cluster that is itself registered as `kind`, to be read. Where a
   * snapshot says that its L1 table lies is no reason not to: whoever writes is told.
   */
  structureAt(offset: number, kind: TableKind): string | null {
    const asked = OVERLAP_MODES.cached & ~BIT[kind] & ~Guarded.inactiveL1;
    return this.#find(offset, this.#source.geometry.clusterSize, asked);
  }

  /** The same where it is to be written. */
  hitByTable(offset: number, kind: TableKind): string | null {
    return this.#find(offset, this.#source.geometry.clusterSize, this.guarded & ~BIT[kind]);
  }

  #find(offset: number, length: number, set: number): string | null {
    if (set === 0) return null;
    const source = this.#source;
    const { clusterSize } = source.geometry;
    const end = offset + length;
    if ((set & Guarded.mainHeader) !== 0 && offset < clusterSize) return 'qcow2_header';
    const { l1Offset, l1, refcountTableOffset, refcountTable } = source;
    if ((set & Guarded.activeL1) !== 0 && meets(offset, end, l1Offset, l1.length)) {
      return 'active L1 table';
    }
    const tableBytes = refcountTable.length;
    const aimed = (set & Guarded.refcountTable) !== 0;
    if (aimed && meets(offset, end, refcountTableOffset, tableBytes)) return 'refcount table';
    const range = { start: offset - (offset % clusterSize), end, step: clusterSize };
    if ((set & Guarded.activeL2) !== 0 && this.#l2.hasIn(range)) return 'active L2 table';
    if ((set & Guarded.refcountBlock) !== 0 && this.#blocks.hasIn(range)) return 'refcount block';
    return this.#findBesides(offset, end, set);
  }

  #findBesides(offset: number, end: number, set: number): string | null {
    const crypt = this.#cryptHeader;
    if ((set & Guarded.mainHeader) !== 0 && meets(offset, end, crypt.offset, crypt.length)) {
      return 'encryption header';
    }
    const table = this.#snapshotTable;
    if ((set & Guarded.snapshotTable) !== 0 && meets(offset, end, table.offset, table.length)) {
      return 'snapshot table';
    }
    if ((set & Guarded.inactiveL1) !== 0 && this.#inactiveL1.meets(offset, end)) {
      return 'inactive L1 table';
    }
    const { clusterSize } = this.#source.geometry;
    const range = { start: offset - (offset % clusterSize), end, step: clusterSize };
    if ((set & Guarded.inactiveL2) !== 0 && this.#inactiveL2.hasIn(range)) {
      return 'inactive L2 table';
    }
    const bitmaps = this.#bitmaps;
    if ((set & Guarded.bitmapDirectory) === 0 || bitmaps === null) return null;
    return meets(offset, end, bitmaps.offset, bitmaps.size) ? 'bitmap directory' : null;
  }
}

export type TableKind = 'L2 table' | 'refcount block';

const BIT = { 'L2 table': Guarded.activeL2, 'refcount block': Guarded.refcountBlock } as const;

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
  const count = usedEntries(view);
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

/** Entries before a rest that is zero: most of these tables hold little. */
function usedEntries({ buffer, byteOffset, byteLength }: DataView): number {
  const bytes = new Uint8Array(buffer, byteOffset, byteLength);
  let end = byteLength - (byteLength % 8);
  while (end > 8) {
    const half = Math.ceil(end / 16) * 8;
    if (!isZero(bytes.subarray(half, end))) break;
    end = half;
  }
  return end / 8;
}

function meets(offset: number, end: number, start: number, length: number): boolean {
  return offset < start + length && end > start;
}
