// SPDX-License-Identifier: Apache-2.0
// Entries that version 2 does not have. Those that say "zeroes" become holes where nothing lies
// behind the image, data otherwise; the view stays as it is at every write. Clusters compressed
// with zstd stay what they are, so there must be none.

import { BlockError, IMAGE_LIMITS } from '../../../../base/index.js';
import { EntryKind, entryHostOffset, isCompressed, UNALLOCATED_ENTRY } from '../entries.js';
import { viewOf } from '../metadata/index.js';
import type { MetadataStore, Qcow2Image, Table } from '../metadata/index.js';
import type { Writer } from '../data/index.js';
import type { AmendWork } from './work.js';

/** Everything is on stable storage when it ends. */
export async function expandZeroes(
  store: MetadataStore,
  writer: Writer,
  work: AmendWork,
): Promise<void> {
  const { image } = store;
  await refuseZeroesOfSnapshots(image);
  const tables = image.l1.length / 8;
  for (let index = 0; index < tables; index += 1) {
    if (image.l2Offset(index) === 0) continue;
    work.step(index, tables);
    await expandTable(store, writer, index);
  }
  await store.flusher.flushAll();
}

async function expandTable(store: MetadataStore, writer: Writer, index: number): Promise<void> {
  const { image } = store;
  const { clusterSize, geometry } = image;
  const first = index * geometry.l2Entries;
  const present = await store.lookup(index * geometry.l2Coverage);
  if (present === null) return;
  const found: number[] = [];
  for (let at = 0; at < geometry.l2Entries; at += 1) {
    if (isZeroEntry(image, present.view, store.entryAt(at))) found.push(first + at);
  }
  for (const cluster of found) {
    const offset = cluster * clusterSize;
    const length = Math.min(clusterSize, image.size - offset);
    if (length > 0 && !image.holesStayZero) await writer.writeZeroData(offset, length);
    else await makeHole(store, cluster);
  }
}

async function makeHole(store: MetadataStore, cluster: number): Promise<void> {
  const room = store.makeRoom();
  if (room !== undefined) await room;
  const { clusterSize } = store.image;
  for (;;) {
    const table = await heldBack(store.forWriting(cluster * clusterSize));
    if (table === null) continue;
    const change = { entry: UNALLOCATED_ENTRY, punch: store.image.policies.passDiscardOther };
    store.replaceEntry(table, cluster, change);
    return;
  }
}

/** Null: ask again, within the turn in which the answer is used. */
async function heldBack(table: Table | void | Promise<Table | void>): Promise<Table | null> {
  if (!(table instanceof Promise)) return table ?? null;
  await table;
  return null;
}

function isZeroEntry(image: Qcow2Image, view: DataView, at: number): boolean {
  const kind = image.entryKind(view.getUint32(at), view.getUint32(at + 4));
  return kind === EntryKind.zero || kind === EntryKind.zeroAllocated;
}

/** Their tables are not changed: other snapshots may use them as well. */
async function refuseZeroesOfSnapshots(image: Qcow2Image): Promise<void> {
  for (const { l1Offset, l1Entries } of image.snapshots.snapshots) {
    const l1 = await readL1(image, l1Offset, l1Entries);
    if (!(await someEntry(image, l1, (view, at) => isZeroEntry(image, view, at)))) continue;
    throw new BlockError('unsupported', 'Internal snapshots prevent downgrade of image');
  }
}

/** Version 2 takes every compressed cluster for a deflated one. Everything must be flushed. */
export async function refuseZstdClusters(image: Qcow2Image): Promise<void> {
  const tables = [image.l1];
  for (const { l1Offset, l1Entries } of image.snapshots.snapshots) {
    tables.push(await readL1(image, l1Offset, l1Entries));
  }
  for (const l1 of tables) {
    if (!(await someEntry(image, l1, (view, at) => isCompressed(view.getUint32(at))))) continue;
    throw new BlockError(
      'unsupported',
      'Cannot downgrade an image with zstd compression type and existing compressed clusters',
    );
  }
}

async function readL1(image: Qcow2Image, offset: number, entries: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(Math.min(entries * 8, IMAGE_LIMITS.qcow2L1Bytes));
  await image.readFile(offset, bytes);
  return bytes;
}

/** Whether an L2 entry of an L1 table on disk is such a one. */
async function someEntry(
  image: Qcow2Image,
  l1: Uint8Array,
  isSuch: (view: DataView, at: number) => boolean,
): Promise<boolean> {
  const { clusterSize, geometry } = image;
  const bytes = new Uint8Array(clusterSize);
  const view = viewOf(bytes);
  const entries = viewOf(l1);
  for (let index = 0; index < l1.length; index += 8) {
    const offset = entryHostOffset(entries.getUint32(index), entries.getUint32(index + 4));
    if (offset === 0) continue;
    await image.readFile(offset, bytes);
    for (let at = 0; at < clusterSize; at += geometry.l2EntryBytes) {
      if (isSuch(view, at)) return true;
    }
  }
  return false;
}
