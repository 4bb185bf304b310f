// SPDX-License-Identifier: Apache-2.0
// Sweeps over one L1 table and its L2 tables: references are added or dropped for all they name,
// and copied flags are made to say what the new refcounts are.
//
// No L2 table is changed where it stands: one with a wrong flag is copied, and the L1 table that is
// given back names the copy. Each distinct L2 table is read once, however often it is named.

import { BlockError } from '../../../../base/index.js';
import { L2Tables } from '../check/index.js';
import {
  compressedHostOffset,
  compressedLength,
  entryHi,
  entryHostOffset,
  hasReservedL1Bits,
  isCopied,
} from '../entries.js';
import { L2_ENTRY } from '../layout.js';
import { hex, shownHex, viewOf } from '../metadata/index.js';
import type { Qcow2Image } from '../metadata/index.js';
import type { NewBytes } from './new-bytes.js';
import type { NextRefcounts } from './next-refcounts.js';

const COPIED_HI = L2_ENTRY.copied.hi;

export interface SweepContext {
  readonly image: Qcow2Image;
  readonly next: NextRefcounts;
  readonly output: NewBytes;
}

/** Adds `change` references to the L2 tables that `l1` names and to all that these name. */
export async function countMapping(
  { image, next }: SweepContext,
  l1: Uint8Array,
  change: 1 | -1,
): Promise<void> {
  const tables = tablesOf(image, l1);
  for (let index = 0; index < tables.entries; index += 1) {
    const offset = tableOffset(image, tables, index);
    const times = offset === 0 ? 0 : tables.visits(offset);
    if (times === 0) continue;
    await next.change(offset / image.clusterSize, change * times);
    const read = tables.read(index);
    const bytes = read instanceof Promise ? await read : read;
    if (bytes === null) continue;
    const view = viewOf(bytes);
    let at = 0;
    for (;;) {
      const missing = countTable({ image, next, output: view, offset }, at, change * times);
      if (missing === null) break;
      at = missing.at;
      await next.load(missing.cluster);
    }
  }
}

interface TableSweep {
  readonly image: Qcow2Image;
  readonly next: NextRefcounts;
  readonly output: DataView;
  /** Of the table. */
  readonly offset: number;
}

/** Entries from byte `from` on; says where it must go on when a cluster's count is not there. */
function countTable(
  { image, next, output: view, offset: tableAt }: TableSweep,
  from: number,
  change: number,
): { readonly at: number; readonly cluster: number } | null {
  const { clusterSize, geometry } = image;
  const { clusterBits, l2EntryBytes } = geometry;
  for (let at = from; at < view.byteLength; at += l2EntryBytes) {
    const hi = view.getUint32(at);
    const lo = view.getUint32(at + 4);
    if (hi === 0 && lo === 0) continue;
    if ((hi & L2_ENTRY.compressed.hi) === 0) {
      const offset = entryHostOffset(hi, lo);
      if (offset === 0) continue;
      if (offset % clusterSize !== 0) {
        const place = `L2 offset: ${shownHex(tableAt)}, L2 index: ${shownHex(at / l2EntryBytes)}`;
        throw image.entryError(
          `L2 entry ${hex(hi, lo)}: cluster is not aligned`,
          `Cluster allocation offset ${shownHex(offset)} unaligned (${place})`,
        );
      }
      const cluster = offset / clusterSize;
      if (!next.add(cluster, change)) return { at, cluster };
      continue;
    }
    const offset = compressedHostOffset(hi, lo, clusterBits);
    const length = compressedLength(hi, lo, clusterBits);
    const first = Math.floor(offset / clusterSize);
    const last = Math.floor((offset + length - 1) / clusterSize);
    for (let cluster = first; cluster <= last; cluster += 1) {
      if (next.get(cluster) === null) return { at, cluster };
    }
    for (let cluster = first; cluster <= last; cluster += 1) next.add(cluster, change);
  }
  return null;
}

/**
 * `l1` with every flag as the next refcounts are, in it and in its L2 tables; `holders` L1 tables
 * (this one and its equals) name them.
 */
export async function reflag(
  context: SweepContext,
  l1: Uint8Array,
  holders: number,
): Promise<Uint8Array> {
  const { image, next } = context;
  const tables = tablesOf(image, l1);
  const moved = new Map<number, number>();
  for (let index = 0; index < tables.entries; index += 1) {
    const offset = tableOffset(image, tables, index);
    const times = offset === 0 ? 0 : tables.visits(offset);
    if (times === 0) continue;
    const read = tables.read(index);
    const bytes = read instanceof Promise ? await read : read;
    const copy = bytes === null ? null : await withRightFlags(context, bytes);
    if (copy === null) continue;
    const place = await next.take(1, holders * times);
    await next.change(offset / image.clusterSize, -holders * times);
    await context.output.add(place, copy);
    moved.set(offset, place);
  }
  const result = l1.slice();
  const view = viewOf(result);
  for (let index = 0; index < tables.entries; index += 1) {
    const offset = tables.offset(index);
    if (offset === 0) continue;
    const place = moved.get(offset) ?? offset;
    const count = await countOf(next, place / image.clusterSize);
    view.setUint32(index * 8, entryHi(place, count === 1));
    view.setUint32(index * 8 + 4, place % 0x1_0000_0000 >>> 0);
  }
  return result;
}

/** A copy of the L2 table with right flags; null where they are right. */
async function withRightFlags(
  { image, next }: SweepContext,
  bytes: Uint8Array,
): Promise<Uint8Array | null> {
  const view = viewOf(bytes);
  const { l2EntryBytes } = image.geometry;
  let copy: Uint8Array | null = null;
  let copied = view;
  for (let at = 0; at < bytes.length; at += l2EntryBytes) {
    const offset = flaggedOffset(view, at);
    if (offset === 0) continue;
    const cluster = offset / image.clusterSize;
    const count = next.get(cluster) ?? (await countOf(next, cluster));
    const hi = view.getUint32(at);
    if ((count === 1) === isCopied(hi)) continue;
    if (copy === null) {
      copy = bytes.slice();
      copied = viewOf(copy);
    }
    copied.setUint32(at, (hi ^ COPIED_HI) >>> 0);
  }
  return copy;
}

/** The cluster that the flag of an entry is about; 0: the entry has none. */
function flaggedOffset(view: DataView, at: number): number {
  const hi = view.getUint32(at);
  if ((hi & L2_ENTRY.compressed.hi) !== 0) return 0;
  return entryHostOffset(hi, view.getUint32(at + 4));
}

async function countOf(next: NextRefcounts, cluster: number): Promise<number> {
  const count = next.get(cluster);
  if (count !== null) return count;
  await next.load(cluster);
  return next.get(cluster) ?? 0;
}

function tablesOf(image: Qcow2Image, l1: Uint8Array): L2Tables {
  return new L2Tables({ node: image.file }, image, viewOf(l1));
}

/** Throws on an entry that cannot be. */
function tableOffset(image: Qcow2Image, tables: L2Tables, index: number): number {
  const hi = tables.hi(index);
  const lo = tables.lo(index);
  const offset = entryHostOffset(hi, lo);
  if (hasReservedL1Bits(hi, lo) || offset % image.clusterSize !== 0) {
    throw image.l1EntryError(index, hi, lo);
  }
  if (offset >= image.file.length) {
    throw new BlockError(
      'corrupt-image',
      `${image.label}: L2 table at offset ${offset} is beyond the end of the file`,
      { node: image.name, errno: 'EIO' },
    );
  }
  return offset;
}
