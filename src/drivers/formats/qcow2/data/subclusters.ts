// SPDX-License-Identifier: Apache-2.0
// Subclusters of extended L2 entries: masks, and what a change makes of an entry.
//
// Source: the qcow2 format description ("Extended L2 Entries"). Bit n of a mask is subcluster n.
// What a subcluster is follows from the host offset and its two bits; both bits set, or an
// allocated one without a host cluster, cannot be. The zero bit of standard entries means nothing
// here, and a compressed cluster has no subclusters. Pure: no I/O.

import {
  ALL_SUBCLUSTERS,
  EntryKind,
  isCompressed,
  isHosted,
  zeroEntry,
} from '../entries.js';
import type { L2Entry } from '../entries.js';
import { SUBCLUSTERS } from '../layout.js';
import type { Geometry } from '../layout.js';

export interface Span {
  /** Bytes, end exclusive. */
  readonly start: number;
  readonly end: number;
}

/** How an entry becomes another one. */
export interface Erasure {
  /** An entry without anything of this layer or another behind it stays as it is. */
  readonly discard: boolean;
  /** Host clusters are given up when all of the cluster is erased. */
  readonly unmap: boolean;
  /** Only what is not allocated changes. */
  readonly holes?: boolean;
}

/** The subclusters of `cluster` that lie in the span, also in part. */
export function maskWithin(span: Span, cluster: number, geometry: Geometry): number {
  const { clusterSize, subclusterSize } = geometry;
  const start = cluster * clusterSize;
  const first = Math.max(0, Math.floor((span.start - start) / subclusterSize));
  const end = Math.min(SUBCLUSTERS, Math.ceil((span.end - start) / subclusterSize));
  if (end <= first) return 0;
  return ((ALL_SUBCLUSTERS >>> (SUBCLUSTERS - (end - first))) << first) >>> 0;
}

/** Subclusters from `first` on that are all in the mask. */
export function runOfMask(mask: number, first: number): number {
  const others = ~(mask >>> first);
  return others === 0 ? SUBCLUSTERS : lowestBit(others);
}

/** Number of the lowest bit set; the mask is not 0. */
function lowestBit(mask: number): number {
  return 31 - Math.clz32(mask & -mask);
}

/** What the subcluster is, `hosted` when it says nothing but the cluster has a place. */
export function subclusterKind(entry: L2Entry, subcluster: number): EntryKind {
  if (isCompressed(entry.hi)) return EntryKind.compressed;
  const bit = 1 << subcluster;
  const zero = (entry.zeroes & bit) !== 0;
  if (!isHosted(entry)) {
    return zero ? EntryKind.zero : EntryKind.unallocated;
  }
  if ((entry.allocated & bit) !== 0) return EntryKind.data;
  return zero ? EntryKind.zeroAllocated : EntryKind.hosted;
}

/** The subclusters of one kind; the entry is not compressed. */
export function maskOfKind(entry: L2Entry, kind: EntryKind): number {
  const hosted = isHosted(entry);
  switch (kind) {
    case EntryKind.data:
      return hosted ? entry.allocated : 0;
    case EntryKind.zeroAllocated:
      return hosted ? entry.zeroes : 0;
    case EntryKind.hosted:
      return hosted ? ~(entry.zeroes | entry.allocated) : 0;
    case EntryKind.zero:
      return hosted ? 0 : entry.zeroes;
    default:
      return hosted ? 0 : ~entry.zeroes;
  }
}

/**
 * Guest bytes that a write of `span` into a newly taken cluster has to fill: whole subclusters,
 * and everything that the old entry of the cluster holds and a new place must hold as well.
 */
export function filledSpan(
  span: Span,
  place: { readonly cluster: number; readonly old: L2Entry | null },
  geometry: Geometry,
): Span {
  const { clusterSize, subclusterSize } = geometry;
  const { cluster, old } = place;
  let start = Math.floor(span.start / subclusterSize) * subclusterSize;
  let end = Math.ceil(span.end / subclusterSize) * subclusterSize;
  if (old === null) return { start, end };
  const held = isCompressed(old.hi) ? ALL_SUBCLUSTERS : old.allocated;
  if (held === 0) return { start, end };
  const base = cluster * clusterSize;
  start = Math.min(start, base + lowestBit(held) * subclusterSize);
  end = Math.max(end, base + (SUBCLUSTERS - Math.clz32(held)) * subclusterSize);
  return { start, end };
}

/** The entry once the bytes of `mask` are in the host cluster at `hostOffset`. */
export function writtenEntry(
  old: L2Entry,
  owned: L2Entry,
  mask: number,
): L2Entry {
  if (mask === ALL_SUBCLUSTERS) return owned;
  const { hi, lo } = owned;
  if (isCompressed(old.hi)) return { hi, lo, zeroes: 0, allocated: mask };
  return {
    hi,
    lo,
    zeroes: (old.zeroes & ~mask) >>> 0,
    allocated: (old.allocated | mask) >>> 0,
  };
}

/**
 * The entry once the subclusters of `mask` read as zeroes; the same object when nothing changes.
 * A part of a compressed cluster cannot be said to.
 */
export function erasedEntry(
  old: L2Entry,
  mask: number,
  how: Erasure & { readonly geometry: Geometry; readonly backed: boolean },
): L2Entry {
  const hosted = isHosted(old);
  const compressed = isCompressed(old.hi);
  if (how.holes === true) {
    const free = compressed ? 0 : mask & ~(old.zeroes | old.allocated);
    return free === 0 ? old : { ...old, zeroes: (old.zeroes | free) >>> 0 };
  }
  const whole = mask === ALL_SUBCLUSTERS;
  if (how.discard && !hosted && !compressed && !how.backed) return old;
  if (whole && (how.unmap || compressed || !hosted)) {
    const erased = !hosted && !compressed && old.zeroes === ALL_SUBCLUSTERS;
    return erased ? old : zeroEntry(how.geometry);
  }
  const zeroes = (old.zeroes | mask) >>> 0;
  const allocated = (old.allocated & ~mask) >>> 0;
  return zeroes === old.zeroes && allocated === old.allocated ? old : { ...old, zeroes, allocated };
}
