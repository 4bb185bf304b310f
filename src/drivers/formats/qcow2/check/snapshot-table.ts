// SPDX-License-Identifier: Apache-2.0
// A new snapshot table for one whose entries lack what version 3 needs, or have more extra data
// than anybody reads.
//
// Refcounts on disk must be right. Order: refcounts of the new clusters → sync → the table → sync →
// the header's first sector names it → sync → refcounts of the old clusters. A power cut leaves
// leaks and one of both tables.

import { writeRequest } from '../../../../block/index.js';
import type { Child } from '../../../../block/index.js';
import type { Qcow2Header } from '../header.js';
import { writeRefcount } from '../metadata/index.js';
import type { HeaderPatch } from '../metadata/index.js';
import { encodeSnapshotTable, readSnapshotTable } from '../snapshot-table.js';
import { refcountAt } from './refcounts-on-disk.js';
import type { RefcountsOnDisk } from './refcounts-on-disk.js';
import type { Regions } from './regions.js';

export interface SnapshotTableRenewal {
  readonly file: Pick<Child, 'node'>;
  readonly header: Qcow2Header;
  readonly regions: Regions;
  readonly onDisk: RefcountsOnDisk;
  /** Durable when it resolves. */
  patch(patch: HeaderPatch): Promise<void>;
}

/** False where there is no room for it within the refcount blocks that there are. */
export async function renewSnapshotTable(renewal: SnapshotTableRenewal): Promise<boolean> {
  const { file, header } = renewal;
  const { clusterSize } = header.geometry;
  const old = await readSnapshotTable(file.node, header, { isLenient: true });
  const { version, size } = header.fields;
  const bytes = encodeSnapshotTable(old.snapshots, { version, size });
  const count = Math.ceil(bytes.length / clusterSize);
  const first = await findFree(renewal, count);
  if (first === null) return false;
  for (let at = first; at < first + count; at += 1) await changeRefcount(renewal, at, 1);
  await file.node.flush();
  const whole = new Uint8Array(count * clusterSize);
  whole.set(bytes);
  await file.node.write(writeRequest(first * clusterSize, whole));
  await file.node.flush();
  await renewal.patch({ snapshotsOffset: first * clusterSize });
  const start = header.fields.snapshotsOffset / clusterSize;
  const end = start + Math.ceil(old.length / clusterSize);
  for (let at = start; at < end; at += 1) {
    if (renewal.regions.references.get(at) === 1) await changeRefcount(renewal, at, 0);
  }
  await file.node.flush();
  return true;
}

/** The first clusters in a row that nothing refers to and no refcount counts. */
async function findFree(renewal: SnapshotTableRenewal, count: number): Promise<number | null> {
  const { file, header, regions } = renewal;
  const { clusterSize } = header.geometry;
  const behind = Math.max(Math.ceil(file.node.length / clusterSize), regions.references.end);
  let start = 1;
  for (let at = start; at < start + count && at < behind + count; at += 1) {
    // What is named behind the end of the file may come back with the rest of the file.
    const isNamed = regions.references.get(at) > 0 || regions.beyond.get(at) > 0;
    if (isNamed || (await refcountOf(renewal, at)) !== 0) start = at + 1;
  }
  return start <= behind ? start : null;
}

/** Null where no block has room for it. */
async function refcountOf(
  { header, onDisk }: SnapshotTableRenewal,
  cluster: number,
): Promise<number | null> {
  const { refcountBlockEntries, refcountBits } = header.geometry;
  const index = Math.floor(cluster / refcountBlockEntries);
  if (onDisk.blockOffset(index) === 0) return null;
  const block = await onDisk.block(index);
  return block && refcountAt(block, cluster % refcountBlockEntries, refcountBits);
}

async function changeRefcount(
  { header, onDisk }: SnapshotTableRenewal,
  cluster: number,
  refcount: number,
): Promise<void> {
  const { refcountBlockEntries, refcountOrder: order } = header.geometry;
  const index = Math.floor(cluster / refcountBlockEntries);
  const block = await onDisk.block(index);
  if (block === null) return;
  const changed = block.slice();
  const place = { order, index: cluster % refcountBlockEntries };
  writeRefcount(new DataView(changed.buffer), place, refcount);
  await onDisk.replace(index, changed);
}
