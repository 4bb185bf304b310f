// SPDX-License-Identifier: Apache-2.0
// Larger top-level tables: a new table is made beside the old one and switched to by one write.
//
// Order: contents of the new table (and what it points to) → sync → first sector of the header →
// sync → the old table's clusters become free. A crash before the header write leaves the old
// table in force, after it the new one; either way all they name is on disk. Both run as exclusive
// work of the flusher, so that no flush writes sectors of a table that is being replaced.

import { BlockError, IMAGE_LIMITS } from '../../../../base/index.js';
import { SECTOR_SIZE } from '../layout.js';
import type { Allocator } from './alloc.js';
import type { Flusher } from './flush.js';
import type { Qcow2Image } from './image.js';
import { writeRefcount } from './refcounts.js';
import type { Refcounts } from './refcounts.js';
import { switchHeader } from './switch-header.js';
import { Table } from './table-cache.js';

export interface GrowContext {
  readonly image: Qcow2Image;
  readonly refcounts: Refcounts;
  readonly allocator: Allocator;
  readonly flusher: Flusher;
}

/**
 * Makes the refcount table reach `blockCount` blocks and more. The new table and the blocks that
 * describe it stand in the first range that the old table cannot reach, so making them needs no
 * allocation.
 */
export async function growRefcountTable(context: GrowContext, blockCount: number): Promise<void> {
  await context.flusher.exclusive(async () => {
    if (context.refcounts.tableEntries >= blockCount) return;
    await context.image.point('reftable_grow');
    const plan = planRefcountTable(context, blockCount);
    await switchRefcountTable(context, plan);
  });
}

interface RefcountTablePlan {
  readonly table: Uint8Array;
  readonly tableOffset: number;
  readonly tableClusters: number;
  readonly blocks: readonly Table[];
  readonly firstBlock: number;
}

function planRefcountTable(context: GrowContext, blockCount: number): RefcountTablePlan {
  const { image, refcounts } = context;
  const { clusterSize } = image;
  const perBlock = refcounts.blockEntries;
  const oldEntries = refcounts.tableEntries;
  const firstBlock = oldEntries;
  let tableClusters = 0;
  let blocks = 0;
  let wanted = Math.max(blockCount, Math.ceil(oldEntries * 1.5));
  for (;;) {
    tableClusters = Math.ceil((wanted * 8) / clusterSize);
    blocks = Math.ceil(tableClusters / (perBlock - 1));
    if (firstBlock + blocks <= (tableClusters * clusterSize) / 8) break;
    wanted = firstBlock + blocks;
  }
  if (tableClusters * clusterSize > IMAGE_LIMITS.qcow2RefcountTableBytes) {
    throw new BlockError('too-large', `${image.label}: refcount table would exceed 8 MiB`);
  }
  const start = firstBlock * perBlock * clusterSize;
  const total = tableClusters + blocks;
  const place = { offset: start, length: total * clusterSize };
  const hit = image.overlaps.hit(place.offset, place.length);
  if (hit !== null) throw image.overlapError(hit, 'new refcount table', place);
  const made: Table[] = [];
  for (let index = 0; index < blocks; index += 1) {
    const block = new Table(start + index * clusterSize, new Uint8Array(clusterSize));
    const used = Math.min(perBlock, total - index * perBlock);
    for (let at = 0; at < used; at += 1) {
      writeRefcount(block.view, { order: image.geometry.refcountOrder, index: at }, 1);
    }
    made.push(block);
  }
  return {
    table: new Uint8Array(tableClusters * clusterSize),
    tableOffset: start + blocks * clusterSize,
    tableClusters,
    blocks: made,
    firstBlock,
  };
}

async function switchRefcountTable(context: GrowContext, plan: RefcountTablePlan): Promise<void> {
  const { image, refcounts, flusher } = context;
  const { clusterSize } = image;
  await image.point('refblock_alloc_write_blocks');
  for (const block of plan.blocks) await image.writeFile(block.offset, block.bytes);
  const view = new DataView(plan.table.buffer);
  plan.table.set(image.refcountTable);
  // Blocks that the old table on disk does not name yet must be there before the new one does.
  await flusher.writeRefcountBlocks();
  plan.blocks.forEach((block, index) => {
    const at = (plan.firstBlock + index) * 8;
    view.setUint32(at, Math.floor(block.offset / 0x1_0000_0000));
    view.setUint32(at + 4, block.offset % 0x1_0000_0000 >>> 0);
  });
  await image.point('refblock_alloc_write_table');
  await image.writeFile(plan.tableOffset, plan.table);
  await image.sync();
  await image.point('refblock_alloc_switch_table');
  await switchHeader(image, {
    refcountTableOffset: plan.tableOffset,
    refcountTableClusters: plan.tableClusters,
  });
  const old = { offset: image.refcountTableOffset, table: image.refcountTable };
  const added = entriesAdded(old.table, plan.table);
  plan.table.set(old.table);
  image.replaceRefcountTable(plan.tableOffset, plan.table);
  for (const sector of added) image.dirtyRefcountTableSectors.add(sector);
  plan.blocks.forEach((block) => {
    image.refcountBlocks.adopt(block);
    image.overlaps.addRefcountBlock(block.offset);
  });
  image.event('cluster_free');
  refcounts.release([
    {
      offset: old.offset,
      clusters: old.table.length / clusterSize,
      stamp: image.leases.stamp(),
      punch: false,
    },
  ]);
  refcounts.drainLater();
}

/** Sectors of the old table that changed while the new one was written. */
function entriesAdded(old: Uint8Array, written: Uint8Array): number[] {
  const sectors: number[] = [];
  for (let at = 0; at < old.length; at += SECTOR_SIZE) {
    const now = old.subarray(at, at + SECTOR_SIZE);
    if (Buffer.compare(now, written.subarray(at, at + SECTOR_SIZE)) !== 0) {
      sectors.push(at / SECTOR_SIZE);
    }
  }
  return sectors;
}

/** Makes the L1 table hold at least `entries` entries; the virtual size stays. */
export async function growL1(context: GrowContext, entries: number): Promise<void> {
  const { image } = context;
  if (image.l1.length / 8 >= entries) return;
  if (entries * 8 > IMAGE_LIMITS.qcow2L1Bytes) {
    const text = 'Failed to grow the L1 table: File too large';
    throw new BlockError('too-large', text, { node: image.name, errno: 'EFBIG' });
  }
  const clusters = Math.ceil((entries * 8) / image.clusterSize);
  await image.point('l1_grow_alloc_table');
  let run = context.allocator.takeAll(clusters);
  while (run instanceof Promise) {
    await run;
    run = context.allocator.takeAll(clusters);
  }
  const { offset } = run;
  try {
    // L2 tables and refcounts that the new L1 names are durable before it is written.
    await context.flusher.flush(true);
    await context.flusher.exclusive(() => switchL1(context, { offset, clusters, entries }));
  } catch (error) {
    if (!image.corrupt) context.refcounts.undo(offset, clusters);
    throw error;
  }
}

async function switchL1(
  context: GrowContext,
  place: { readonly offset: number; readonly clusters: number; readonly entries: number },
): Promise<void> {
  const { image, refcounts, flusher } = context;
  const bytes = new Uint8Array(place.entries * 8);
  // Entries added since the flush name tables that are not on disk: those go out with the next.
  const fresh = new Set(image.dirtyL1Sectors);
  const written = new Uint8Array(place.clusters * image.clusterSize);
  written.set(image.l1);
  for (const sector of fresh) await readSector(image, written, sector);
  await flusher.writeRefcountBlocks();
  await image.point('l1_grow_write_table');
  await image.writeFile(place.offset, written);
  await image.sync();
  await image.point('l1_grow_activate_table');
  await switchHeader(image, { l1Offset: place.offset, l1Entries: place.entries });
  const old = { offset: image.l1Offset, length: image.l1.length };
  bytes.set(image.l1);
  for (const sector of image.dirtyL1Sectors) fresh.add(sector);
  image.replaceL1(place.offset, bytes);
  for (const sector of fresh) image.dirtyL1Sectors.add(sector);
  image.event('cluster_free');
  refcounts.release([
    {
      offset: old.offset,
      clusters: Math.ceil(old.length / image.clusterSize),
      stamp: image.leases.stamp(),
      punch: false,
    },
  ]);
  refcounts.drainLater();
}

/** Puts a sector of the L1 table as it is on disk into `l1`. */
async function readSector(image: Qcow2Image, l1: Uint8Array, sector: number): Promise<void> {
  const start = sector * SECTOR_SIZE;
  const end = Math.min(start + SECTOR_SIZE, image.l1.length);
  await image.readFile(image.l1Offset + start, l1.subarray(start, end));
}
