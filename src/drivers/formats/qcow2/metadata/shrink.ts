// SPDX-License-Identifier: Apache-2.0
// A smaller image: ONE write of the header's first sector gives it the new size and drops the L1
// entries past the end; only then, with that durable, what they held becomes free.
//
// Order: everything flushed → header → sync → L2 tables and clusters past the end are freed →
// refcount blocks that count nothing but themselves are dropped → the file is cut after the last
// cluster in use. A crash after the header leaves leaks, and entries past the end of the image in
// the last L2 table, which are cleared before the image grows over them (clearEntries).
// What fails after the header leaks as well: the image has its new size by then.

import { BlockError } from '../../../../base/index.js';
import { isZero } from '../../../../codec/index.js';
import { UNALLOCATED_ENTRY } from '../entries.js';
import { SECTOR_SIZE, l1EntriesFor } from '../layout.js';
import type { Qcow2Image } from './image.js';
import type { MetadataStore } from './store.js';
import { switchHeader } from './switch-header.js';
import type { Table } from './table-cache.js';

/** `size` is smaller than the image is. Throws with the image as it was. */
export async function shrinkImage(store: MetadataStore, size: number): Promise<void> {
  const { flusher } = store;
  await flusher.flush(true);
  const dropped = await flusher.exclusive(() => switchSize(store, size));
  if (dropped.length > 0) await store.image.point('l1_shrink_free_l2_clusters');
  try {
    for (const offset of dropped) await freeTable(store, offset);
    await clearEntries(store, size);
    await trimFile(store);
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
  }
}

/**
 * Takes every cluster out of the image. L1 entries go first and, with that durable, what they
 * named becomes free; a crash in between leaves leaks and any part of what was there.
 */
export async function emptyImage(store: MetadataStore): Promise<void> {
  await clearEntries(store, 0);
  await trimFile(store);
}

/** Brings everything out and gives back what lies behind the last cluster in use. */
async function trimFile(store: MetadataStore): Promise<void> {
  const { flusher } = store;
  await flusher.flushAll();
  await dropRefcountBlocks(store);
  await flusher.flushAll();
  await cutFile(store);
}

/** Gives the offsets of the L2 tables that nothing names any more, each once. */
async function switchSize(store: MetadataStore, size: number): Promise<readonly number[]> {
  const { image, refcounts } = store;
  const { clusterSize, geometry } = image;
  const present = image.l1.length / 8;
  const entries = Math.min(present, Math.max(1, l1EntriesFor(size, geometry)));
  if (entries < present) await image.point('l1_shrink_write_table');
  await switchHeader(image, { size, l1Entries: entries });
  const dropped = new Set<number>();
  for (let index = entries; index < present; index += 1) dropped.add(l2OffsetOrZero(image, index));
  // A damaged image may name one table twice.
  for (let index = 0; index < entries; index += 1) dropped.delete(l2OffsetOrZero(image, index));
  dropped.delete(0);
  image.shortenL1(entries);
  image.size = size;
  const kept = Math.ceil((entries * 8) / clusterSize);
  const spare = Math.ceil((present * 8) / clusterSize) - kept;
  if (spare > 0) refcounts.free(image.l1Offset + kept * clusterSize, spare, true);
  return [...dropped];
}

/** A bad entry names nothing that could be freed. */
function l2OffsetOrZero(image: Qcow2Image, index: number): number {
  try {
    return image.l2Offset(index);
  } catch (error) {
    if (error instanceof BlockError) return 0;
    throw error;
  }
}

/** Drops an L2 table that no L1 entry names with all it holds; what cannot be read leaks. */
async function freeTable(store: MetadataStore, offset: number): Promise<void> {
  const { image, refcounts } = store;
  const room = store.makeRoom();
  if (room !== undefined) await room;
  let table: Table;
  try {
    table = await image.l2.load(offset);
  } catch (error) {
    if (error instanceof BlockError) return;
    throw error;
  }
  freeContents(store, table);
  image.l2.drop(table);
  image.overlaps.removeL2(offset);
  refcounts.free(offset, 1, true);
}

function freeContents(store: MetadataStore, table: Table): void {
  const { l2EntryBytes } = store.image.geometry;
  for (let at = 0; at < table.bytes.length; at += l2EntryBytes) {
    store.freeEntry(table.view.getUint32(at), table.view.getUint32(at + 4), true);
  }
}

/**
 * Empties every entry of whole clusters at or after `size`, as far as the L1 table reaches, or as
 * its first `most` entries do.
 */
export async function clearEntries(
  store: MetadataStore,
  size: number,
  most = Infinity,
): Promise<void> {
  const { image } = store;
  const { clusterSize, geometry } = image;
  const tables = Math.min(image.l1.length / 8, most);
  let cluster = Math.ceil(size / clusterSize);
  for (;;) {
    const index = Math.floor(cluster / geometry.l2Entries);
    if (index >= tables) return;
    const end = (index + 1) * geometry.l2Entries;
    const wait =
      image.l2Offset(index) === 0
        ? null
        : (store.makeRoom() ?? image.locks.conflict(cluster, end) ?? clearTable(store, cluster));
    if (wait === null) cluster = end;
    else await wait;
  }
}

/** The entries from `cluster` to the end of its table; a promise: wait and ask again. */
function clearTable(store: MetadataStore, cluster: number): Promise<unknown> | null {
  const { image } = store;
  const { clusterSize, geometry } = image;
  const present = store.lookup(cluster * clusterSize);
  if (present instanceof Promise) return present;
  const first = cluster % geometry.l2Entries;
  const from = store.entryAt(cluster);
  if (present === null || isZero(present.bytes.subarray(from))) {
    return null;
  }
  if (first === 0) {
    image.entriesChanged(cluster, cluster + geometry.l2Entries);
    freeContents(store, present);
    image.dropL2(cluster / geometry.l2Entries, present);
    store.refcounts.free(present.offset, 1, true);
    return null;
  }
  const table = store.forWriting(cluster * clusterSize);
  if (table instanceof Promise) return table;
  if (table === undefined) return Promise.resolve();
  for (let entry = first; entry < geometry.l2Entries; entry += 1) {
    const at = entry * geometry.l2EntryBytes;
    if (isZero(table.bytes.subarray(at, at + geometry.l2EntryBytes))) continue;
    const change = { entry: UNALLOCATED_ENTRY, punch: true };
    store.replaceEntry(table, cluster + entry - first, change);
  }
  return null;
}

/**
 * The table on disk forgets the blocks first; their clusters are free only after that is durable.
 * A block that somebody took a cluster of meanwhile stays, and its entry is written again before
 * anything that relies on it.
 */
async function dropRefcountBlocks(store: MetadataStore): Promise<void> {
  const { image, flusher, refcounts } = store;
  const found = await emptyBlocks(store);
  if (found.length === 0) return;
  await flusher.exclusive(async () => {
    // A flush may have made durable what relies on one of them by now.
    const empty = found.filter((index) => {
      const block = refcounts.peek(index);
      return block && isEmpty(store, block, index);
    });
    const sectors = [...new Set(empty.map((index) => Math.floor((index * 8) / SECTOR_SIZE)))];
    const writes = sectors.map((sector) => sectorWithout(image, sector, empty));
    try {
      // Sectors may name blocks that are not on disk yet.
      await flusher.writeRefcountBlocks();
      await image.sync();
      for (const { offset, bytes } of writes) await image.writeFile(offset, bytes);
      await image.sync();
    } catch (error) {
      for (const sector of sectors) image.dirtyRefcountTableSectors.add(sector);
      throw error;
    }
    for (const index of empty) forgetBlock(store, index);
  });
}

function sectorWithout(
  image: Qcow2Image,
  sector: number,
  empty: readonly number[],
): { readonly offset: number; readonly bytes: Uint8Array } {
  const start = sector * SECTOR_SIZE;
  const bytes = image.refcountTable.slice(start, start + SECTOR_SIZE);
  for (const index of empty) {
    const at = index * 8 - start;
    if (at >= 0 && at < SECTOR_SIZE) bytes.fill(0, at, at + 8);
  }
  return { offset: image.refcountTableOffset + start, bytes };
}

function forgetBlock(store: MetadataStore, index: number): void {
  const { image, refcounts } = store;
  const block = refcounts.peek(index);
  if (!block || !isEmpty(store, block, index)) {
    image.dirtyRefcountTableSectors.add(Math.floor((index * 8) / SECTOR_SIZE));
    return;
  }
  image.dropRefcountBlock(index, block);
  if (ownPlace(store, block, index) < 0) refcounts.free(block.offset, 1, true);
  else refcounts.onFreed(block.offset / image.clusterSize);
}

async function emptyBlocks(store: MetadataStore): Promise<number[]> {
  const { refcounts } = store;
  const empty: number[] = [];
  for (let index = 0; index < blocksOfFile(store); index += 1) {
    const block = await refcounts.load(index);
    if (block !== null && isEmpty(store, block, index)) empty.push(index);
  }
  return empty;
}

/** Blocks for what lies in the file; a hostile table may have a million more. */
function blocksOfFile({ image, refcounts }: MetadataStore): number {
  const clusters = Math.ceil(image.file.length / image.clusterSize);
  return Math.min(refcounts.tableEntries, Math.ceil(clusters / refcounts.blockEntries));
}

/** Where a block counts itself, or −1 when another one does. */
function ownPlace(store: MetadataStore, block: Table, index: number): number {
  const { image, refcounts } = store;
  const place = block.offset / image.clusterSize - index * refcounts.blockEntries;
  return place >= 0 && place < refcounts.blockEntries ? place : -1;
}

/** Counts nothing, or nothing but itself once. */
function isEmpty(store: MetadataStore, block: Table, index: number): boolean {
  const { refcounts } = store;
  const { bytes } = block;
  const own = ownPlace(store, block, index);
  if (own < 0) return isZero(bytes);
  const perByte = refcounts.blockEntries / bytes.length;
  const together = Math.max(1, perByte);
  // The places that share bytes with its own one by one, all others at once.
  const first = own - (own % together);
  const end = first + together;
  for (let place = first; place < end; place += 1) {
    if (refcounts.get(block, place) !== (place === own ? 1 : 0)) return false;
  }
  return isZero(bytes.subarray(0, first / perByte)) && isZero(bytes.subarray(end / perByte));
}

/** Looked up and cut in one turn: a cluster taken later is written after the cut. */
async function cutFile(store: MetadataStore): Promise<void> {
  const { image } = store;
  for (;;) {
    const end = endInUse(store);
    if (end instanceof Promise) {
      await end;
      continue;
    }
    if (end > 0 && end < image.file.length) await image.file.truncate(end, { exact: false });
    return;
  }
}

/** End of the last cluster in use in bytes; a promise: wait and ask again. */
function endInUse(store: MetadataStore): number | Promise<unknown> {
  const { image, refcounts } = store;
  for (let index = blocksOfFile(store) - 1; index >= 0; index -= 1) {
    if (refcounts.blockOffset(index) === 0) continue;
    const block = refcounts.load(index);
    if (block instanceof Promise) return block;
    for (let place = refcounts.blockEntries - 1; block !== null && place >= 0; place -= 1) {
      if (refcounts.get(block, place) === 0) continue;
      return (index * refcounts.blockEntries + place + 1) * image.clusterSize;
    }
  }
  return 0;
}
