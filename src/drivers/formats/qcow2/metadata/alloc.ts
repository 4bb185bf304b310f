// SPDX-License-Identifier: Apache-2.0
// Takes host clusters: contiguous runs for data and tables, byte ranges for compressed clusters.
//
// Everything here is one synchronous turn. Where something must be loaded or the refcount table
// must grow first, a promise is returned instead of a result: the caller waits and asks again.
// The refcount of what is handed out is already counted in memory. A missing refcount block is
// made in the first cluster of the range that it describes, so that it counts itself and making
// one never needs another; those that a long run needs stand right before it. Nothing that lies on
// known metadata is ever handed out, whatever the refcounts say.

import { BlockError } from '../../../../base/index.js';
import type { Qcow2Image } from './image.js';
import type { Refcounts } from './refcounts.js';
import type { Table } from './table-cache.js';

export interface ClusterRun {
  /** Host bytes, a multiple of the cluster size. */
  readonly offset: number;
  readonly clusters: number;
}

export interface ByteRun {
  /** Host bytes, any alignment. */
  readonly offset: number;
  readonly length: number;
}

/**
 * Where takeAll() has got to, kept until it is asked again: its blocks stay in memory, since a run
 * may reach over more of them than the cache holds.
 */
interface RunSearch {
  readonly count: number;
  /** No run begins before this cluster. */
  start: number;
  /** By the number of the block, which rise. */
  readonly pinned: Map<number, Table>;
}

/** Host offsets have 56 bits on disk and 53 here. */
const MAX_HOST_OFFSET = Number.MAX_SAFE_INTEGER;

export class Allocator {
  readonly #image: Qcow2Image;
  readonly #refcounts: Refcounts;
  /** No cluster below this index is free. */
  #hint = 0;
  /** Next free byte behind the last compressed cluster, 0 = start a new host cluster. */
  #compressedEnd = 0;
  #search: RunSearch | null = null;
  /** Makes the refcount table reach at least this many blocks. */
  growTable: (blockCount: number) => Promise<void> = () =>
    Promise.reject(new BlockError('no-space', 'refcount table cannot grow'));

  constructor(image: Qcow2Image, refcounts: Refcounts) {
    this.#image = image;
    this.#refcounts = refcounts;
    refcounts.onFreed = (cluster) => this.#noteFreed(cluster);
  }

  /** Forgets what was learned of the image (after a repair). */
  reset(): void {
    this.#search = null;
    this.#hint = 0;
    this.#compressedEnd = 0;
  }

  /** 1 to `max` contiguous clusters; a promise: wait for it, then ask again. */
  take(max: number): ClusterRun | Promise<void> {
    this.#image.event('cluster_alloc');
    this.#image.event('refblock_alloc');
    return this.#take(max);
  }

  #take(max: number): ClusterRun | Promise<void> {
    const entries = this.#refcounts.blockEntries;
    for (let cluster = this.#hint; ; ) {
      const block = this.#blockFor(cluster);
      if (block instanceof Promise) return block;
      const blockStart = cluster - (cluster % entries);
      const start = this.#firstFree(block, cluster - blockStart);
      if (start < entries) {
        const count = this.#countFree(block, start, max);
        const run = this.#claim(block, { cluster: blockStart + start, count });
        this.#hint = blockStart + start + count;
        return run;
      }
      cluster = blockStart + entries;
      this.#hint = cluster;
    }
  }

  /**
   * Exactly `count` contiguous clusters, across refcount blocks when needed (an L1 table). Missing
   * blocks are made right before the run: within it, there would be none of more than one range.
   */
  takeAll(count: number): ClusterRun | Promise<void> {
    this.#image.event('cluster_alloc');
    this.#image.event('refblock_alloc');
    if (this.#search?.count !== count) this.#endSearch();
    const search = (this.#search ??= { count, start: this.#hint, pinned: new Map() });
    let isWaiting = false;
    try {
      const waiting = this.#advance(search);
      isWaiting = waiting !== undefined;
      return waiting ?? this.#takeFound(search);
    } finally {
      if (!isWaiting) this.#endSearch();
    }
  }

  /** Looks on for a run; a promise where a block is missing, with what was found remembered. */
  #advance(search: RunSearch): Promise<void> | undefined {
    const entries = this.#refcounts.blockEntries;
    for (let cluster = search.start; cluster < search.start + search.count; cluster += 1) {
      const block = this.#blockWithin(search, cluster);
      if (block instanceof Promise) {
        return block.catch((error: unknown) => {
          this.#endSearch();
          throw error;
        });
      }
      const index = Math.floor(cluster / entries);
      if (!search.pinned.has(index)) {
        this.#image.refcountBlocks.pin(block);
        search.pinned.set(index, block);
      }
      if (this.#refcounts.get(block, cluster % entries) === 0) continue;
      search.start = cluster + 1;
      for (const [at, table] of search.pinned) {
        if (at >= Math.floor(search.start / entries)) break;
        this.#image.refcountBlocks.unpin(table);
        search.pinned.delete(at);
      }
    }
    return undefined;
  }

  /** The block that describes `cluster`; made when missing, but not in the midst of the run. */
  #blockWithin(search: RunSearch, cluster: number): Table | Promise<void> {
    const index = Math.floor(cluster / this.#refcounts.blockEntries);
    const isMissing = index < this.#refcounts.tableEntries && this.#refcounts.peek(index) === null;
    if (!isMissing || cluster === search.start) return this.#blockFor(cluster);
    const place = this.#take(1);
    if (place instanceof Promise) return place;
    const taken = place.offset / this.#image.clusterSize;
    search.start = Math.max(search.start, taken + 1);
    return this.#addBlock(index, place.offset);
  }

  #takeFound({ start, count }: RunSearch): ClusterRun {
    const { clusterSize } = this.#image;
    this.#checkPlace(start * clusterSize, count * clusterSize);
    for (let cluster = start; cluster < start + count; cluster += 1) {
      this.#refcounts.set(this.#present(cluster), cluster % this.#refcounts.blockEntries, 1);
    }
    return { offset: start * clusterSize, clusters: count };
  }

  #endSearch(): void {
    for (const table of this.#search?.pinned.values() ?? []) {
      this.#image.refcountBlocks.unpin(table);
    }
    this.#search = null;
  }

  /**
   * `length` bytes (at most a cluster) for a compressed cluster, right behind the last one where
   * refcounts and contiguity allow it. Every host cluster it touches counts one more reference.
   */
  takeBytes(length: number): ByteRun | Promise<void> {
    this.#image.event('cluster_alloc_bytes');
    this.#image.event('refblock_alloc');
    const { clusterSize, geometry } = this.#image;
    const end = this.#compressedEnd;
    const used = end % clusterSize;
    if (end !== 0 && used !== 0) {
      const tail = Math.floor(end / clusterSize);
      const block = this.#blockFor(tail);
      if (block instanceof Promise) return block;
      const index = tail % this.#refcounts.blockEntries;
      const count = this.#refcounts.get(block, index);
      if (count > 0 && count < geometry.maxRefcount) {
        if (used + length <= clusterSize) {
          this.#refcounts.set(block, index, count + 1);
          this.#compressedEnd = end + length;
          return { offset: end, length };
        }
        const next = this.#takeNext(tail + 1);
        if (next instanceof Promise) return next;
        if (next) {
          this.#refcounts.set(this.#present(tail), index, count + 1);
          this.#compressedEnd = end + length;
          return { offset: end, length };
        }
      }
    }
    const run = this.#take(1);
    if (run instanceof Promise) return run;
    this.#compressedEnd = run.offset + length;
    return { offset: run.offset, length };
  }

  /** Gives back what takeBytes() gave, when it was never linked. */
  undoBytes(run: ByteRun): void {
    this.#compressedEnd = 0;
    const { clusterSize } = this.#image;
    const first = Math.floor(run.offset / clusterSize);
    const last = Math.floor((run.offset + run.length - 1) / clusterSize);
    this.#refcounts.undo(first * clusterSize, last - first + 1);
  }

  /** Takes exactly this cluster if it is free. */
  #takeNext(cluster: number): boolean | Promise<void> {
    const block = this.#blockFor(cluster);
    if (block instanceof Promise) return block;
    const index = cluster % this.#refcounts.blockEntries;
    if (this.#refcounts.get(block, index) !== 0) return false;
    this.#claim(block, { cluster, count: 1 });
    return true;
  }

  #claim(block: Table, run: { cluster: number; count: number }): ClusterRun {
    const { clusterSize } = this.#image;
    const offset = run.cluster * clusterSize;
    this.#checkPlace(offset, run.count * clusterSize);
    const first = run.cluster % this.#refcounts.blockEntries;
    for (let index = first; index < first + run.count; index += 1) {
      this.#refcounts.set(block, index, 1);
    }
    return { offset, clusters: run.count };
  }

  #checkPlace(offset: number, length: number): void {
    const image = this.#image;
    if (offset + length > MAX_HOST_OFFSET) {
      throw new BlockError('too-large', `${image.label}: image file would exceed 2^53 bytes`);
    }
    const hit = image.overlaps.hit(offset, length);
    if (hit !== null) {
      throw image.overlapError(hit, 'free cluster', { offset, length });
    }
  }

  #present(cluster: number): Table {
    const block = this.#refcounts.peek(Math.floor(cluster / this.#refcounts.blockEntries));
    if (!block) throw new BlockError('io', `${this.#image.label}: refcount block was dropped`);
    return block;
  }

  /** The block that describes `cluster`, made when missing. */
  #blockFor(cluster: number): Table | Promise<void> {
    const blockIndex = Math.floor(cluster / this.#refcounts.blockEntries);
    if (blockIndex >= this.#refcounts.tableEntries) return this.growTable(blockIndex + 1);
    const block = this.#refcounts.peek(blockIndex);
    if (block === null) return this.#makeBlock(blockIndex);
    return block ?? this.#loadBlock(cluster);
  }

  #loadBlock(cluster: number): Table | Promise<void> {
    const loaded = this.#refcounts.load(Math.floor(cluster / this.#refcounts.blockEntries));
    if (loaded instanceof Promise) return loaded.then(() => undefined);
    return loaded ?? this.#present(cluster);
  }

  #makeBlock(blockIndex: number): Table {
    const { clusterSize } = this.#image;
    const offset = blockIndex * this.#refcounts.blockEntries * clusterSize;
    this.#checkPlace(offset, clusterSize);
    const block = this.#addBlock(blockIndex, offset);
    this.#refcounts.set(block, 0, 1);
    return block;
  }

  #addBlock(blockIndex: number, offset: number): Table {
    const block = this.#image.refcountBlocks.add(offset);
    this.#image.setRefcountBlock(blockIndex, offset);
    return block;
  }

  #firstFree(block: Table, from: number): number {
    const entries = this.#refcounts.blockEntries;
    let index = from;
    while (index < entries && this.#refcounts.get(block, index) !== 0) index += 1;
    return index;
  }

  #countFree(block: Table, start: number, max: number): number {
    const end = Math.min(this.#refcounts.blockEntries, start + max);
    let index = start + 1;
    while (index < end && this.#refcounts.get(block, index) === 0) index += 1;
    return index - start;
  }

  #noteFreed(cluster: number): void {
    this.#hint = Math.min(this.#hint, cluster);
    const { clusterSize } = this.#image;
    const tail = Math.floor((this.#compressedEnd - 1) / clusterSize);
    if (this.#compressedEnd !== 0 && tail === cluster) this.#compressedEnd = 0;
  }
}
