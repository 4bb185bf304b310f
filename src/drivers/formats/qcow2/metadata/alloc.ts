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

/** Clusters looked at again for a long run where some became free. */
const WINDOW_CLUSTERS = 4096;

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
  /** Between the hint and here there is no run of `#soughtClusters`. */
  #near = { at: 0 };
  /** The same, but for clusters that became free since. */
  #far = { at: 0 };
  #soughtClusters = Number.POSITIVE_INFINITY;
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
    this.#near.at = 0;
    this.#far.at = 0;
    this.#compressedEnd = 0;
  }

  /**
   * `max` contiguous clusters, or those up to where a refcount block's range ends; a promise: wait
   * for it, then ask again.
   */
  take(max: number): ClusterRun | Promise<void> {
    this.#image.event('cluster_alloc');
    this.#image.event('refblock_alloc');
    return max === 1 ? this.#take() : this.#takeRun(max);
  }

  #take(): ClusterRun | Promise<void> {
    const entries = this.#refcounts.blockEntries;
    for (let cluster = this.#hint; ; ) {
      const block = this.#blockFor(cluster);
      if (block instanceof Promise) return block;
      const blockStart = cluster - (cluster % entries);
      const start = this.#firstFree(block, { from: cluster - blockStart, end: entries });
      if (start < entries) {
        const run = this.#claim(block, { cluster: blockStart + start, count: 1 });
        this.#hint = blockStart + start + 1;
        return run;
      }
      cluster = blockStart + entries;
      this.#hint = cluster;
    }
  }

  /**
   * The first run that is long enough, so that a large write is not spread over small holes. Holes
   * passed over are not looked at again before something becomes free or a shorter run is wanted,
   * and then a window at a time: the search costs no more than that.
   */
  #takeRun(max: number): ClusterRun | Promise<void> {
    if (max < this.#soughtClusters) {
      this.#soughtClusters = max;
      this.#near.at = this.#hint;
    }
    this.#near.at = Math.max(this.#near.at, this.#hint);
    this.#far.at = Math.max(this.#far.at, this.#hint);
    if (this.#near.at < this.#far.at) {
      const end = Math.min(this.#near.at + WINDOW_CLUSTERS, this.#far.at);
      const found = this.#searchRun(max, this.#near, end);
      if (found !== null) return found;
      return this.#searchFar(max);
    }
    const found = this.#searchFar(max);
    this.#near.at = this.#far.at;
    return found;
  }

  #searchFar(max: number): ClusterRun | Promise<void> {
    for (;;) {
      const found = this.#searchRun(max, this.#far, Number.POSITIVE_INFINITY);
      if (found !== null) return found;
    }
  }

  /** Looks from the cursor on and moves it past what was seen; null: none begins before `end`. */
  #searchRun(
    max: number,
    cursor: { at: number },
    end: number,
  ): ClusterRun | Promise<void> | null {
    const entries = this.#refcounts.blockEntries;
    while (cursor.at < end) {
      const block = this.#blockFor(cursor.at);
      if (block instanceof Promise) return block;
      const blockStart = cursor.at - (cursor.at % entries);
      const limit = Math.min(entries, end - blockStart);
      const start = this.#firstFree(block, { from: cursor.at - blockStart, end: limit });
      cursor.at = blockStart + start;
      if (start >= limit) continue;
      const count = this.#countFree(block, start, max);
      const isFirst = cursor.at <= this.#hint;
      if (count === max || start + count === entries) {
        const run = this.#claim(block, { cluster: cursor.at, count });
        cursor.at += count;
        if (isFirst) this.#hint = cursor.at;
        return run;
      }
      cursor.at += count;
    }
    return null;
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
    const place = this.#take();
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
    const run = this.#take();
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

  #firstFree(block: Table, { from, end }: { from: number; end: number }): number {
    let index = from;
    while (index < end && this.#refcounts.get(block, index) !== 0) index += 1;
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
    const { at } = this.#near;
    if (cluster < at) this.#near.at = Math.max(this.#hint, cluster - this.#soughtClusters);
    const { clusterSize } = this.#image;
    const tail = Math.floor((this.#compressedEnd - 1) / clusterSize);
    if (this.#compressedEnd !== 0 && tail === cluster) this.#compressedEnd = 0;
  }
}
