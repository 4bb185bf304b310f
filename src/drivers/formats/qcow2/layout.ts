// SPDX-License-Identifier: Apache-2.0
// The on-disk tables of qcow2: header, header extensions, feature bits, limits and geometry.
//
// Source: the qcow2 format description ("Header", "Header extensions", "Feature name table").
// Version 2 headers are 72 bytes; version 3 headers at least 104, and the compression type is
// there only when header_length covers it. All numbers are big endian.

import {
  assertLayout,
  bit64,
  bits64,
  bitfield64,
  IMAGE_LIMITS,
  NAME_LIMITS,
  struct,
  u16,
  u32,
  u64,
  u8,
} from '../../../base/index.js';
import type { Bits64, StructValue } from '../../../base/index.js';

export const QCOW2_MAGIC = 0x514649fb;
export const V2_HEADER_LENGTH = 72;
export const V3_MIN_HEADER_LENGTH = 104;
/** Length this program writes: with the compression type and its padding. */
export const V3_HEADER_LENGTH = 112;
/** One write of this many bytes at offset 0 either happens or does not. */
export const SECTOR_SIZE = 512;

export const MIN_CLUSTER_BITS = 9;
export const MAX_CLUSTER_BITS = 21;
export const DEFAULT_CLUSTER_SIZE = 65_536;

export const HEADER = struct('qcow2 header', [
  u32('magic', { equals: QCOW2_MAGIC, says: () => 'Image is not in qcow2 format' }),
  u32('version', { oneOf: [2, 3], says: (value) => `Unsupported qcow2 version ${value}` }),
  u64('backingFileOffset', { tooLarge: 'Invalid backing file offset' }),
  u32('backingFileSize'),
  u32('clusterBits', {
    min: MIN_CLUSTER_BITS,
    max: MAX_CLUSTER_BITS,
    says: (value) => `Unsupported cluster size: 2^${value}`,
  }),
  u64('size', { tooLarge: 'Image is too big' }),
  u32('cryptMethod', {
    max: 2,
    says: (value) => `Unsupported encryption method ${value}`,
  }),
  u32('l1Size', {
    max: IMAGE_LIMITS.qcow2L1Bytes / 8,
    says: () => 'Active L1 table too large',
  }),
  u64('l1TableOffset', { tooLarge: 'Active L1 table offset invalid' }),
  u64('refcountTableOffset', { tooLarge: 'Reference count table offset invalid' }),
  u32('refcountTableClusters', {
    min: 1,
    says: () => 'Image does not contain a reference count table',
  }),
  u32('nbSnapshots', {
    max: IMAGE_LIMITS.qcow2Snapshots,
    says: () => 'Snapshot table too large',
  }),
  u64('snapshotsOffset', { tooLarge: 'Snapshot table offset invalid' }),
  bits64('incompatibleFeatures', { since: 3 }),
  bits64('compatibleFeatures', { since: 3 }),
  bits64('autoclearFeatures', { since: 3 }),
  u32('refcountOrder', {
    since: 3,
    otherwise: 4,
    max: 6,
    says: () => 'Reference count entry width too large; may not exceed 64 bits',
  }),
  u32('headerLength', {
    since: 3,
    otherwise: V2_HEADER_LENGTH,
    min: V3_MIN_HEADER_LENGTH,
    multipleOf: 8,
    says: (value) => {
      if (value < V3_MIN_HEADER_LENGTH) return 'qcow2 header too short';
      const fits = value <= 2 ** MAX_CLUSTER_BITS;
      return fits ? 'Invalid qcow2 header length' : 'qcow2 header exceeds cluster size';
    },
  }),
]);
assertLayout(HEADER, { 2: V2_HEADER_LENGTH, 3: V3_MIN_HEADER_LENGTH });

/** Byte at offset 104 of a version 3 header whose length covers it; 0 (deflate) otherwise. */
export const COMPRESSION_TYPE_OFFSET = 104;
export const CompressionType = { deflate: 0, zstd: 1 } as const;

/** Fixed fields of the header; `compressionType` is 0 when the header does not cover it. */
export type HeaderFields = StructValue<typeof HEADER> & { readonly compressionType: number };

export const ExtensionType = {
  end: 0,
  backingFormat: 0xe2792aca,
  featureNames: 0x6803f857,
  bitmaps: 0x23852875,
  luksHeader: 0x0537be77,
  dataFile: 0x44415441,
} as const;

/** Bytes of an extension's own header: type and length. */
export const EXTENSION_HEADER_SIZE = 8;

/** Payload of the LUKS header extension: bytes of the file. */
export const CRYPT_EXTENSION = struct('encryption header extension', [
  u64('offset', { tooLarge: 'Encryption header offset invalid' }),
  u64('length', { tooLarge: 'Encryption header length invalid' }),
]);
assertLayout(CRYPT_EXTENSION, { 3: 16 });

/** How guest data is encrypted. */
export const CryptMethod = { none: 0, aes: 1, luks: 2 } as const;

/** Payload of the bitmaps extension. */
export const BITMAPS_EXTENSION = struct('bitmaps extension', [
  u32('nbBitmaps', {
    min: 1,
    max: IMAGE_LIMITS.qcow2Bitmaps,
    says: (value) =>
      value === 0
        ? 'found bitmaps extension with zero bitmaps'
        : `bitmaps_ext: Image has ${value} bitmaps, exceeding the QEMU supported maximum of ` +
          `${IMAGE_LIMITS.qcow2Bitmaps}`,
  }),
  u32('reserved', { equals: 0, says: () => 'bitmaps_ext: Reserved field is not zero' }),
  u64('directorySize', {
    min: 1,
    max: IMAGE_LIMITS.qcow2BitmapDirectoryBytes,
    tooLarge: 'bitmaps_ext: bitmap directory size exceeds the maximum supported size',
    says: (value) =>
      value === 0
        ? 'Requested bitmap directory size is zero'
        : `bitmaps_ext: bitmap directory size (${value}) exceeds the maximum supported size ` +
          `(${IMAGE_LIMITS.qcow2BitmapDirectoryBytes})`,
  }),
  u64('directoryOffset', {
    min: 512,
    tooLarge: 'bitmaps_ext: invalid bitmap directory offset',
    says: () => 'bitmaps_ext: invalid bitmap directory offset',
  }),
]);
assertLayout(BITMAPS_EXTENSION, { 3: 24 });

/** Fixed part of a snapshot table entry; extra data, ID and name follow, padded to 8 bytes. */
export const SNAPSHOT_ENTRY = struct('snapshot table entry', [
  u64('l1TableOffset'),
  u32('l1Size'),
  u16('idSize'),
  u16('nameSize'),
  u32('dateSeconds'),
  u32('dateNanoseconds'),
  bits64('vmClock'),
  u32('vmStateSize'),
  u32('extraDataSize', { max: IMAGE_LIMITS.qcow2SnapshotExtraBytes }),
]);
assertLayout(SNAPSHOT_ENTRY, { 2: 40, 3: 40 });

/** Extra data of a snapshot as far as it is known; version 3 must have the first two fields. */
export const SNAPSHOT_EXTRA = struct('snapshot extra data', [
  u64('vmStateSize'),
  u64('diskSize'),
  bits64('icount'),
]);
assertLayout(SNAPSHOT_EXTRA, { 2: 24, 3: 24 });

/** Fixed part of a bitmap directory entry: extra data, the name and padding to 8 follow. */
export const BITMAP_ENTRY = struct('bitmap directory entry', [
  u64('tableOffset', { min: 512 }),
  u32('tableSize', { min: 1, max: IMAGE_LIMITS.qcow2BitmapTableEntries }),
  u32('flags', { max: 3 }),
  u8('type', { equals: 1 }),
  u8('granularityBits', { min: 9, max: 31 }),
  u16('nameSize', { min: 1, max: NAME_LIMITS.bitmapNameBytes }),
  u32('extraDataSize', { max: 0, says: () => 'Bitmap extra data is not supported' }),
]);
assertLayout(BITMAP_ENTRY, { 3: 24 });

/** Byte of a bitmap directory entry where its flags begin: never across a sector's end. */
export const BITMAP_FLAGS_OFFSET = 12;
export const BitmapFlag = { inUse: 1, auto: 2 } as const;

/** Entry of a bitmap table: a cluster with bits; without one all bits are alike. */
export const BITMAP_TABLE_ENTRY = bitfield64({ hostOffset: [9, 55], allOnes: 0 });

export const Incompatible = {
  dirty: 0,
  corrupt: 1,
  externalDataFile: 2,
  compressionType: 3,
  extendedL2: 4,
} as const;

export const Compatible = { lazyRefcounts: 0 } as const;
export const Autoclear = { bitmaps: 0, rawExternalData: 1 } as const;

export const KNOWN_INCOMPATIBLE: Bits64 = { hi: 0, lo: 0b1_1111 };
export const DIRTY_BIT = bit64(Incompatible.dirty);
export const CORRUPT_BIT = bit64(Incompatible.corrupt);
export const COMPRESSION_TYPE_BIT = bit64(Incompatible.compressionType);
export const DATA_FILE_BIT = bit64(Incompatible.externalDataFile);
export const BITMAPS_BIT = bit64(Autoclear.bitmaps);
export const EXTENDED_L2_BIT = bit64(Incompatible.extendedL2);
export const LAZY_REFCOUNTS_BIT = bit64(Compatible.lazyRefcounts);
export const RAW_DATA_FILE_BIT = bit64(Autoclear.rawExternalData);

/** Type codes of the feature name table, with the header word each belongs to. */
export const FeatureType = { incompatible: 0, compatible: 1, autoclear: 2 } as const;
export const FEATURE_ENTRY_SIZE = 48;
/** Of an entry, behind the type and the number of its bit: the name. */
export const FEATURE_NAME_OFFSET = 2;

/** Smaller clusters are left to the backing name: the reference gives them no feature names. */
export const FEATURE_NAMES_MIN_CLUSTER = 8192;

/** Names written into new images, in the order the reference writes them. */
export const FEATURE_NAMES: readonly { type: number; bit: number; name: string }[] = [
  { type: 0, bit: Incompatible.dirty, name: 'dirty bit' },
  { type: 0, bit: Incompatible.corrupt, name: 'corrupt bit' },
  { type: 0, bit: Incompatible.externalDataFile, name: 'external data file' },
  { type: 0, bit: Incompatible.compressionType, name: 'compression type' },
  { type: 0, bit: Incompatible.extendedL2, name: 'extended L2 entries' },
  { type: 1, bit: Compatible.lazyRefcounts, name: 'lazy refcounts' },
  { type: 2, bit: Autoclear.bitmaps, name: 'bitmaps' },
  { type: 2, bit: Autoclear.rawExternalData, name: 'raw external data' },
];

/** L1 entry: bit 63 says that the L2 table's refcount is exactly one. */
export const L1_ENTRY = bitfield64({ copied: 63, hostOffset: [9, 55] });
/** Standard L2 entry; bit 0 (reads as zeroes) exists since version 3. */
export const L2_ENTRY = bitfield64({ copied: 63, compressed: 62, hostOffset: [9, 55], zero: 0 });

/** Subclusters of a cluster with extended L2 entries. */
export const SUBCLUSTERS = 32;
/** Log2 of the smallest cluster that extended L2 entries can be used with. */
export const MIN_EXTENDED_CLUSTER_BITS = 14;

/** Sizes that follow from the header alone. */
export interface Geometry {
  readonly clusterBits: number;
  /** Bytes. */
  readonly clusterSize: number;
  /** Bytes of an L2 entry: 8, or 16 with a bitmap of subclusters. */
  readonly l2EntryBytes: number;
  /** Guest data lies in a file of its own: there offset 0 is a place like others. */
  readonly dataFile: boolean;
  /** 1, or 32 with extended L2 entries. */
  readonly subclustersPerCluster: number;
  /** Bytes; the cluster size without extended L2 entries. */
  readonly subclusterSize: number;
  /** Entries of one L2 table. */
  readonly l2Entries: number;
  readonly l2Bits: number;
  /** Guest bytes behind one L2 table. */
  readonly l2Coverage: number;
  readonly refcountOrder: number;
  /** Width of a refcount: 1, 2, 4, … 64. */
  readonly refcountBits: number;
  /** Largest refcount; 2^53 − 1 for the 64-bit width. */
  readonly maxRefcount: number;
  /** Refcounts in one refcount block. */
  readonly refcountBlockEntries: number;
  /** Host bytes behind one refcount block. */
  readonly refcountBlockCoverage: number;
}

export function geometryOf(
  clusterBits: number,
  refcountOrder: number,
  extendedL2 = false,
): Geometry {
  const clusterSize = 2 ** clusterBits;
  const l2Bits = clusterBits - (extendedL2 ? 4 : 3);
  const subclustersPerCluster = extendedL2 ? SUBCLUSTERS : 1;
  const refcountBits = 2 ** refcountOrder;
  const refcountBlockEntries = (clusterSize * 8) / refcountBits;
  return {
    clusterBits,
    clusterSize,
    l2EntryBytes: extendedL2 ? 16 : 8,
    dataFile: false,
    subclustersPerCluster,
    subclusterSize: clusterSize / subclustersPerCluster,
    l2Entries: 2 ** l2Bits,
    l2Bits,
    l2Coverage: clusterSize * 2 ** l2Bits,
    refcountOrder,
    refcountBits,
    maxRefcount: refcountBits === 64 ? Number.MAX_SAFE_INTEGER : 2 ** refcountBits - 1,
    refcountBlockEntries,
    refcountBlockCoverage: refcountBlockEntries * clusterSize,
  };
}

/** L1 entries needed for `size` guest bytes. */
export function l1EntriesFor(size: number, geometry: Geometry): number {
  return Math.ceil(size / geometry.l2Coverage);
}
