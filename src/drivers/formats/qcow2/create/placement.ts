// SPDX-License-Identifier: Apache-2.0
// Where everything of an empty image lies, and its tables.
//
// Header, refcount table, first refcount block, L1 table, then L2 tables and data clusters of a
// preallocated image, the LUKS header of an encrypted one, then the refcount blocks that all of
// these need. Pure: no I/O.

import type { CryptHeaderPlace } from '../header.js';
import type { Geometry } from '../layout.js';
import { l1EntriesFor } from '../layout.js';
import type { EmptyImage } from './empty-image.js';
import { encodeHeaderCluster } from './header-cluster.js';

/** Bit 63 of an entry, in its upper half. */
const COPIED = 0x8000_0000;

interface Piece {
  readonly offset: number;
  readonly bytes: Uint8Array;
}

/** The bytes of an empty image: header cluster, tables, and the length of the file. */
export function layOut(image: EmptyImage): {
  header: Uint8Array;
  /** Made one by one: those of a preallocated image may be many. */
  tables: Iterable<Piece>;
  fileLength: number;
  /** Empty clusters; null where nothing is encrypted with LUKS. */
  cryptHeader: CryptHeaderPlace | null;
} {
  const { geometry } = image;
  const { clusterSize } = geometry;
  const l1Bytes = l1EntriesFor(image.size, geometry) * 8;
  const l1Clusters = Math.ceil(l1Bytes / clusterSize);
  const dataClusters =
    image.preallocation === 'off' ? 0 : Math.ceil(image.size / clusterSize);
  const l2Clusters = Math.ceil(dataClusters / geometry.l2Entries);
  const ownClusters = l2Clusters + (geometry.dataFile ? 0 : dataClusters);
  const cryptBytes = image.encryption?.headerBytes ?? 0;
  const cryptClusters = Math.ceil(cryptBytes / clusterSize);
  const places = placeTables(geometry, l1Clusters + ownClusters + cryptClusters);
  const { tableClusters, l1Cluster, blocks, lastBlock, endCluster } = places;
  const l1TableOffset = l1Bytes === 0 ? 0 : l1Cluster * clusterSize;
  const cryptOffset = (l1Cluster + l1Clusters + ownClusters) * clusterSize;
  const cryptHeader = cryptBytes === 0 ? null : { offset: cryptOffset, length: cryptBytes };
  const header = encodeHeaderCluster(image, { l1TableOffset, tableClusters, cryptHeader });
  const l2Cluster = l1Cluster + l1Clusters;
  const firstData = geometry.dataFile ? 0 : l2Cluster + l2Clusters;
  const readsAsZeroes = image.encryption !== null;
  const data = { l2Cluster, l2Clusters, firstData, dataClusters, readsAsZeroes };
  function* tables(): Generator<Piece> {
    const entries = [...blocks].map(([index, cluster]) => [index, cluster * clusterSize] as const);
    yield { offset: clusterSize, bytes: refcountTable(tableClusters * clusterSize, entries) };
    for (const [index, offset] of entries) {
      yield { offset, bytes: refcountBlock(geometry, index, endCluster) };
    }
    if (l1Bytes > 0) yield { offset: l1TableOffset, bytes: l1Table(l1Bytes, data, clusterSize) };
    yield* l2Tables(geometry, data);
  }
  // Without data clusters the file ends with the last byte written, as the reference leaves it.
  const blocksEnd = (lastBlock + 1) * clusterSize;
  const l1End = dataClusters === 0 ? l1TableOffset + l1Bytes : 0;
  const dataEnd = dataClusters === 0 ? 0 : (l2Cluster + ownClusters) * clusterSize;
  const cryptEnd = cryptBytes === 0 ? 0 : cryptOffset + cryptClusters * clusterSize;
  const fileLength = Math.max(blocksEnd, l1End, dataEnd, cryptEnd);
  return { header, tables: tables(), fileLength, cryptHeader };
}

/** L2 tables, then data clusters or none in this file; none of either unless preallocated. */
interface DataPlaces {
  readonly l2Cluster: number;
  readonly l2Clusters: number;
  readonly firstData: number;
  readonly dataClusters: number;
  /** Zeroes of the file are none to the guest: entries say that they are. */
  readonly readsAsZeroes: boolean;
}

function refcountTable(
  length: number,
  entries: readonly (readonly [index: number, offset: number])[],
): Uint8Array {
  const bytes = new Uint8Array(length);
  const view = new DataView(bytes.buffer);
  for (const [index, offset] of entries) {
    view.setUint32(index * 8, Math.floor(offset / 0x1_0000_0000));
    view.setUint32(index * 8 + 4, offset % 0x1_0000_0000);
  }
  return bytes;
}

function l1Table(length: number, data: DataPlaces, clusterSize: number): Uint8Array {
  const view = new DataView(new ArrayBuffer(length));
  for (let index = 0; index < data.l2Clusters; index += 1) {
    setOwned(view, index * 8, (data.l2Cluster + index) * clusterSize);
  }
  return new Uint8Array(view.buffer);
}

function* l2Tables(geometry: Geometry, data: DataPlaces): Generator<Piece> {
  const { clusterSize, l2Entries, l2EntryBytes } = geometry;
  const isZero = data.readsAsZeroes && geometry.subclustersPerCluster === 1;
  for (let table = 0; table < data.l2Clusters; table += 1) {
    const view = new DataView(new ArrayBuffer(clusterSize));
    const first = table * l2Entries;
    const count = Math.min(l2Entries, data.dataClusters - first);
    for (let index = 0; index < count; index += 1) {
      // With a bitmap of subclusters none of them is allocated: what is behind shows through.
      const at = index * l2EntryBytes;
      setOwned(view, at, (data.firstData + first + index) * clusterSize);
      if (isZero) view.setUint8(at + 7, 1);
    }
    const bytes = new Uint8Array(view.buffer);
    yield { offset: (data.l2Cluster + table) * clusterSize, bytes };
  }
}

/** At byte `at`, an L1 or L2 entry for a cluster with refcount one. */
function setOwned(view: DataView, at: number, hostOffset: number): void {
  view.setUint32(at, (Math.floor(hostOffset / 0x1_0000_0000) | COPIED) >>> 0);
  view.setUint32(at + 4, hostOffset % 0x1_0000_0000);
}

interface TablePlaces {
  readonly tableClusters: number;
  readonly l1Cluster: number;
  /** Refcount block index → cluster, in the order in which they were allocated. */
  readonly blocks: ReadonlyMap<number, number>;
  /** Cluster of the refcount block that lies last. */
  readonly lastBlock: number;
  /** All clusters below are in use. */
  readonly endCluster: number;
}

/** With the smallest refcount table that has an entry for each block that it brings about. */
function placeTables(geometry: Geometry, runClusters: number): TablePlaces {
  const entriesPerCluster = geometry.clusterSize / 8;
  for (let tableClusters = 1; ; ) {
    const { highest, ...places } = placeBlocks(geometry, { tableClusters, runClusters });
    // A larger table never needs fewer blocks, so that no smaller one will do either.
    const needed = Math.floor(highest / entriesPerCluster) + 1;
    if (needed <= tableClusters) return places;
    tableClusters = needed;
  }
}

/**
 * Places the tables as an allocator does that takes the run of clusters that begins with the L1
 * table (and goes on with L2 tables and data, when preallocated) in one piece first and
 * then, cluster by cluster, the refcount blocks that are missing to count them (a new block may
 * itself need another one). `highest` is the largest index of a block.
 */
function placeBlocks(
  geometry: Geometry,
  { tableClusters, runClusters }: { tableClusters: number; runClusters: number },
): TablePlaces & { readonly highest: number } {
  const perBlock = geometry.refcountBlockEntries;
  const firstBlock = 1 + tableClusters;
  const l1Cluster = firstBlock + 1;
  const runEnd = l1Cluster + runClusters;
  const blocks = new Map<number, number>();
  let highest = Math.floor(firstBlock / perBlock);
  let next = runEnd;
  const cover = (cluster: number): void => {
    const index = Math.floor(cluster / perBlock);
    if (blocks.has(index)) return;
    const place = next;
    next += 1;
    highest = Math.max(highest, index);
    blocks.set(index, place);
    cover(place);
  };
  blocks.set(highest, firstBlock);
  for (let cluster = 0; cluster < runEnd; cluster += perBlock) cover(cluster);
  const lastBlock = next === runEnd ? firstBlock : next - 1;
  return { tableClusters, l1Cluster, blocks, lastBlock, endCluster: next, highest };
}

/** A refcount block in which every cluster below `endCluster` has refcount one. */
function refcountBlock(geometry: Geometry, index: number, endCluster: number): Uint8Array {
  const bytes = new Uint8Array(geometry.clusterSize);
  const first = index * geometry.refcountBlockEntries;
  const count = Math.min(geometry.refcountBlockEntries, endCluster - first);
  const { refcountBits } = geometry;
  for (let entry = 0; entry < count; entry += 1) {
    if (refcountBits >= 8) {
      const width = refcountBits / 8;
      bytes[entry * width + width - 1] = 1;
    } else {
      const bit = entry * refcountBits;
      bytes[bit >>> 3] = (bytes[bit >>> 3] ?? 0) | (1 << (bit & 7));
    }
  }
  return bytes;
}
