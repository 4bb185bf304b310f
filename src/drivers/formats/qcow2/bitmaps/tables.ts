// SPDX-License-Identifier: Apache-2.0
// Bitmap tables and the clusters with bits that they name: reading bits, and storing them anew.
//
// Source: the qcow2 format description ("Bitmap table", "Bitmap data"). Bits are never written
// where bits lie already: what is stored takes clusters of its own, which nothing on disk names
// until the directory does. Its caller frees the old ones after that.

import { BlockError, IMAGE_LIMITS } from '../../../../base/index.js';
import { readRequest } from '../../../../block/index.js';
import type { DirtyBitmap, Node } from '../../../../block/index.js';
import type { ClusterRun, MetadataStore } from '../metadata/index.js';
import { clustersOfBits } from './directory.js';
import type { BitmapEntry, DirectoryBounds } from './directory.js';

/** What all bitmaps of an image may have together. */
export class LoadBudget {
  #tableBytes = 0;
  #clusterBytes = 0;

  takeTable(bytes: number): void {
    this.#tableBytes += bytes;
    require(this.#tableBytes, IMAGE_LIMITS.qcow2BitmapTableBytes, 'tables');
  }

  takeCluster(bytes: number): void {
    this.#clusterBytes += bytes;
    require(this.#clusterBytes, IMAGE_LIMITS.qcow2BitmapLoadedBytes, 'bits');
  }
}

function require(bytes: number, limit: number, what: string): void {
  if (bytes <= limit) return;
  const text = `The bitmaps of the image have more than ${limit} bytes of ${what}`;
  throw new BlockError('unsupported', text);
}

/** A table in memory; `get` throws for an entry that breaks a rule. */
export class BitmapTable {
  readonly size: number;
  readonly #view: DataView;
  readonly #clusterSize: number;

  constructor(bytes: Uint8Array, clusterSize: number) {
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#clusterSize = clusterSize;
    this.size = bytes.length / 8;
  }

  /** Offset of a cluster with bits, or what all of its bits are. */
  get(index: number): number | 'clean' | 'dirty' {
    const hi = this.#view.getUint32(index * 8);
    const lo = this.#view.getUint32(index * 8 + 4);
    if (hi === 0 && lo <= 1) return lo === 0 ? 'clean' : 'dirty';
    const offset = hi * 0x1_0000_0000 + lo;
    if (hi <= 0x1f_ffff && offset % this.#clusterSize === 0) return offset;
    const word = hi.toString(16) + lo.toString(16).padStart(8, '0');
    throw new BlockError('corrupt-image', `bitmap table entry ${index} is 0x${word}`);
  }
}

/** Kind `corrupt-image` where the file ends before it. */
export async function readTable(
  file: Node,
  entry: BitmapEntry,
  clusterSize: number,
): Promise<BitmapTable> {
  const bytes = new Uint8Array(entry.tableSize * 8);
  await readThere(file, entry.tableOffset, bytes);
  return new BitmapTable(bytes, clusterSize);
}

async function readThere(file: Node, offset: number, bytes: Uint8Array): Promise<void> {
  if (offset + bytes.length > file.length) {
    const text = `offset ${offset} is beyond the end of the file`;
    throw new BlockError('corrupt-image', text);
  }
  await file.read(readRequest(offset, bytes));
}

export interface LoadContext {
  readonly file: Node;
  readonly bounds: DirectoryBounds;
  readonly budget: LoadBudget;
}

/** Reads the stored bits of an entry into a bitmap of its granularity. */
export async function loadBits(
  { file, bounds, budget }: LoadContext,
  entry: BitmapEntry,
  bitmap: DirtyBitmap,
): Promise<void> {
  const { clusterSize } = bounds;
  const bits = clusterSize * 8;
  let table: BitmapTable;
  try {
    budget.takeTable(entry.tableSize * 8);
    table = await readTable(file, entry, clusterSize);
    for (let index = 0; index < table.size; index += 1) table.get(index);
  } catch (error) {
    throw unreadable(`bitmap_table table from image for bitmap '${entry.name}'`, error);
  }
  try {
    if (table.size !== clustersOfBits(bounds, bitmap.granularity)) {
      const text = `its table does not fit the size of the image (table_size ${table.size})`;
      throw new BlockError('corrupt-image', text);
    }
    let bytes: Uint8Array | null = null;
    for (let index = 0; index < table.size; index += 1) {
      const place = table.get(index);
      if (place === 'dirty') bitmap.loadDirty(index * bits, bits);
      if (typeof place === 'string') continue;
      budget.takeCluster(clusterSize);
      bytes ??= new Uint8Array(clusterSize);
      await readThere(file, place, bytes);
      bitmap.load(index * bits, bytes);
    }
  } catch (error) {
    throw unreadable(`bitmap '${entry.name}' from image`, error);
  }
}

function unreadable(what: string, error: unknown): unknown {
  if (!(error instanceof BlockError)) return error;
  return new BlockError(error.kind, `Could not read ${what}: ${error.message}`, {
    ...error.context,
    cause: error,
  });
}

/** Clusters in use, for whoever gives them back or frees them. */
export type Runs = ClusterRun[];

export async function takeClusters(store: MetadataStore, count: number): Promise<ClusterRun> {
  const { allocator } = store;
  for (;;) {
    const run = count === 1 ? allocator.take(1) : allocator.takeAll(count);
    if (!(run instanceof Promise)) return run;
    await run;
  }
}

/** Writes bytes, padded to whole clusters, to a run of their own. */
export async function writeClusters(
  store: MetadataStore,
  taken: Runs,
  bytes: Uint8Array,
): Promise<number> {
  const { image } = store;
  const count = Math.ceil(bytes.length / image.clusterSize);
  const run = await takeClusters(store, count);
  taken.push(run);
  const whole = new Uint8Array(count * image.clusterSize);
  whole.set(bytes);
  await image.writeFile(run.offset, whole);
  return run.offset;
}

/** Stores bits and their table in new clusters, which are added to `taken`. Does not sync. */
export async function storeBits(
  store: MetadataStore,
  bitmap: DirtyBitmap,
  taken: Runs,
): Promise<{ readonly tableOffset: number; readonly tableSize: number }> {
  const { clusterSize, size } = store.image;
  const tableSize = clustersOfBits({ clusterSize, size }, bitmap.granularity);
  const bytes = new Uint8Array(tableSize * 8);
  const view = new DataView(bytes.buffer);
  for (const piece of bitmap.pieces(clusterSize)) {
    const at = piece.index * 8;
    if (piece.bytes === 'dirty') {
      view.setUint32(at + 4, 1);
      continue;
    }
    const offset = await writeClusters(store, taken, piece.bytes);
    view.setUint32(at, Math.floor(offset / 0x1_0000_0000));
    view.setUint32(at + 4, offset % 0x1_0000_0000 >>> 0);
  }
  return { tableOffset: await writeClusters(store, taken, bytes), tableSize };
}

/** The clusters of a bitmap on disk: its table, and what that names; what is broken is left. */
export async function clustersOf(store: MetadataStore, entry: BitmapEntry): Promise<Runs> {
  const { file, clusterSize } = store.image;
  const runs: Runs = [];
  const tableClusters = Math.ceil((entry.tableSize * 8) / clusterSize);
  try {
    const table = await readTable(file, entry, clusterSize);
    for (let index = 0; index < table.size; index += 1) {
      const place = table.get(index);
      if (typeof place === 'number') runs.push({ offset: place, clusters: 1 });
    }
  } catch (error) {
    // A table that cannot be used: whose its clusters are is not known.
    if (!(error instanceof BlockError) || error.kind !== 'corrupt-image') throw error;
    return [];
  }
  runs.push({ offset: entry.tableOffset, clusters: tableClusters });
  return runs;
}
