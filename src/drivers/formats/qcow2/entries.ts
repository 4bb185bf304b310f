// SPDX-License-Identifier: Apache-2.0
// L1 and L2 table entries as two unsigned 32-bit halves: what they mean and how to make them.
//
// Source: the qcow2 format description ("Cluster mapping"). Nothing here allocates but the
// functions that say so; all are called once per cluster on hot paths. Host offsets have up to 56
// bits and are multiples of 512, so they are exact as numbers; whoever uses one compares it with
// the file's length first.

import { L1_ENTRY, L2_ENTRY } from './layout.js';
import type { Geometry } from './layout.js';

export const EntryKind = {
  unallocated: 0,
  data: 1,
  /** Reads as zeroes, no host cluster. */
  zero: 2,
  /** Reads as zeroes, but a host cluster belongs to it. */
  zeroAllocated: 3,
  compressed: 4,
  /** The zero bit in a version 2 image. */
  invalid: 5,
  /** A subcluster that shows what is behind, though its cluster has a host cluster. */
  hosted: 6,
} as const;
export type EntryKind = (typeof EntryKind)[keyof typeof EntryKind];

const TWO_32 = 0x1_0000_0000;
const COPIED_HI = L2_ENTRY.copied.hi;
const COMPRESSED_HI = L2_ENTRY.compressed.hi;
const ZERO_LO = L2_ENTRY.zero.lo;
const OFFSET_HI = L2_ENTRY.hostOffset.hi;
const OFFSET_LO = L2_ENTRY.hostOffset.lo;
const L2_RESERVED = L2_ENTRY.reserved;
const L1_RESERVED = L1_ENTRY.reserved;

/** What an L2 entry says; reserved bits other than version 2's zero bit are left to check. */
export function entryKind(hi: number, lo: number, version: number): EntryKind {
  if (isCompressed(hi)) return EntryKind.compressed;
  const allocated = (hi & OFFSET_HI) !== 0 || (lo & OFFSET_LO) !== 0;
  if ((lo & ZERO_LO) !== 0) {
    if (version < 3) return EntryKind.invalid;
    return allocated ? EntryKind.zeroAllocated : EntryKind.zero;
  }
  return allocated ? EntryKind.data : EntryKind.unallocated;
}

/**
 * The same where guest data lies in a file of its own: there offset 0 is a place like others, which
 * the copied bit tells from none.
 */
export function entryKindOutside(hi: number, lo: number, version: number): EntryKind {
  const kind = entryKind(hi, lo, version);
  return kind === EntryKind.unallocated && isCopied(hi) ? EntryKind.data : kind;
}

/** Byte offset of the L2 table or of the data cluster; 0 means none. */
export function entryHostOffset(hi: number, lo: number): number {
  return (hi & OFFSET_HI) * TWO_32 + ((lo & OFFSET_LO) >>> 0);
}

export function isCompressed(hi: number): boolean {
  return (hi & COMPRESSED_HI) !== 0;
}

/** The refcount of what the entry points to is exactly one. */
export function isCopied(hi: number): boolean {
  return (hi & COPIED_HI) !== 0;
}

/** Bits set that must be zero in a standard (not compressed) L2 entry. */
export function hasReservedL2Bits(hi: number, lo: number, version: number): boolean {
  if ((hi & L2_RESERVED.hi) !== 0 || (lo & L2_RESERVED.lo) !== 0) return true;
  return version < 3 && (lo & ZERO_LO) !== 0;
}

export function hasReservedL1Bits(hi: number, lo: number): boolean {
  return (hi & L1_RESERVED.hi) !== 0 || (lo & L1_RESERVED.lo) !== 0;
}

/** High half of an entry that points to `hostOffset`. */
export function entryHi(hostOffset: number, copied: boolean): number {
  return ((copied ? COPIED_HI : 0) | (Math.floor(hostOffset / TWO_32) & OFFSET_HI)) >>> 0;
}

/** Low half of an entry that points to `hostOffset` (0 = none), with or without the zero bit. */
export function entryLo(hostOffset: number, zero: boolean): number {
  return (((hostOffset % TWO_32) & OFFSET_LO) | (zero ? ZERO_LO : 0)) >>> 0;
}

/**
 * One L2 entry. The bitmaps exist on disk only with extended L2 entries: bit n is of subcluster n,
 * `zeroes` of those that read as zeroes, `allocated` of those whose bytes are in the host cluster.
 */
export interface L2Entry {
  readonly hi: number;
  readonly lo: number;
  readonly zeroes: number;
  readonly allocated: number;
  /** In a data file, of which it names the begin. */
  readonly atZero?: boolean;
}

type EntryWidth = Pick<Geometry, 'l2EntryBytes' | 'dataFile'>;

/** Every subcluster of a cluster. */
export const ALL_SUBCLUSTERS = 0xffff_ffff;

/** What is at `at` of an L2 table. */
export function entryIn(view: DataView, at: number, geometry: EntryWidth): L2Entry {
  const hi = view.getUint32(at);
  const lo = view.getUint32(at + 4);
  if (geometry.l2EntryBytes === 8) return { hi, lo, zeroes: 0, allocated: 0 };
  const entry = { hi, lo, zeroes: view.getUint32(at + 8), allocated: view.getUint32(at + 12) };
  if (!geometry.dataFile || entryHostOffset(hi, lo) !== 0) return entry;
  return { ...entry, atZero: isCopied(hi) && !isCompressed(hi) };
}

/** A place belongs to the cluster; the entry is not compressed. */
export function isHosted({ hi, lo, atZero = false }: L2Entry): boolean {
  return atZero || entryHostOffset(hi, lo) !== 0;
}

/** The bitmaps contradict each other or the host offset; the entry is not compressed. */
export function isContradiction(entry: L2Entry): boolean {
  if (!isHosted(entry)) return entry.allocated !== 0;
  return (entry.zeroes & entry.allocated) !== 0;
}

export const UNALLOCATED_ENTRY: L2Entry = { hi: 0, lo: 0, zeroes: 0, allocated: 0 };
const ZERO_ENTRY: L2Entry = { ...UNALLOCATED_ENTRY, lo: ZERO_LO };
const ZERO_SUBCLUSTERS: L2Entry = { ...UNALLOCATED_ENTRY, zeroes: ALL_SUBCLUSTERS };

/** All of the cluster is data at `hostOffset`, which has refcount one. */
export function ownedEntry(hostOffset: number): L2Entry {
  const lo = entryLo(hostOffset, false);
  return { hi: entryHi(hostOffset, true), lo, zeroes: 0, allocated: ALL_SUBCLUSTERS };
}

/** All of the cluster reads as zeroes and has no place in the file; version 3. */
export function zeroEntry({ l2EntryBytes }: Pick<Geometry, 'l2EntryBytes'>): L2Entry {
  return l2EntryBytes === 16 ? ZERO_SUBCLUSTERS : ZERO_ENTRY;
}

/** Bits of a compressed entry that hold the byte offset: 62 − (clusterBits − 8), 49 to 61. */
function compressedOffsetBits(clusterBits: number): number {
  return 70 - clusterBits;
}

/** Host byte offset of the compressed data (any byte, not aligned). */
export function compressedHostOffset(hi: number, lo: number, clusterBits: number): number {
  const mask = 2 ** (compressedOffsetBits(clusterBits) - 32) - 1;
  return (hi & mask) * TWO_32 + lo;
}

/** 512-byte sectors that the compressed data touches, at least 1. */
export function compressedSectors(hi: number, clusterBits: number): number {
  const shift = compressedOffsetBits(clusterBits) - 32;
  return ((hi & 0x3fff_ffff) >>> shift) + 1;
}

/**
 * Bytes to read at compressedHostOffset: from there to the end of the last sector. The stream may
 * end before that.
 */
export function compressedLength(hi: number, lo: number, clusterBits: number): number {
  return compressedSectors(hi, clusterBits) * 512 - (lo & 511);
}

/** High half of a compressed entry; never has the copied bit. */
export function compressedEntryHi(
  place: { readonly hostOffset: number; readonly length: number },
  clusterBits: number,
): number {
  const shift = compressedOffsetBits(clusterBits) - 32;
  const first = Math.floor(place.hostOffset / 512);
  const last = Math.floor((place.hostOffset + place.length - 1) / 512);
  const high = Math.floor(place.hostOffset / TWO_32);
  return (COMPRESSED_HI | ((last - first) << shift) | high) >>> 0;
}

export function compressedEntryLo(hostOffset: number): number {
  return hostOffset % TWO_32 >>> 0;
}
