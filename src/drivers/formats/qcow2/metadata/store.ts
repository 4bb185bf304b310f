// SPDX-License-Identifier: Apache-2.0
// The metadata of one image as the data path uses it: lookup and change of L2 entries.
//
// lookup() and forWriting() answer within the turn: a table, or a promise after which the caller
// asks again. L2 entries change only through setEntry() and setEmpty(), under a range lock
// (leases.ts) or within one turn.

import { BlockError } from '../../../../base/index.js';
import type { Eventually } from '../../../../base/index.js';
import { isZero } from '../../../../codec/index.js';
import {
  compressedHostOffset,
  compressedLength,
  EntryKind,
  entryHostOffset,
  isCopied,
  ownedEntry,
  zeroEntry,
} from '../entries.js';
import type { L2Entry } from '../entries.js';
import { Allocator } from './alloc.js';
import type { ClusterRun } from './alloc.js';
import type { ImageOptions } from './contracts.js';
import { Flusher } from './flush.js';
import { growRefcountTable } from './grow.js';
import { Qcow2Image, shownHex } from './image.js';
import { Refcounts } from './refcounts.js';
import type { Table } from './table-cache.js';

/** Guest clusters, `end` exclusive. */
export interface Clusters {
  readonly first: number;
  readonly end: number;
}

export class MetadataStore {
  readonly image: Qcow2Image;
  readonly refcounts: Refcounts;
  readonly allocator: Allocator;
  readonly flusher: Flusher;
  #growing: Promise<void> | null = null;

  constructor(options: ImageOptions) {
    this.image = new Qcow2Image(options);
    this.refcounts = new Refcounts(this.image);
    this.allocator = new Allocator(this.image, this.refcounts);
    this.flusher = new Flusher(this.image, this.refcounts);
    this.allocator.growTable = (blockCount) => this.#growTable(blockCount);
  }

  /** The L2 table for a guest offset; null when there is none; a promise: wait and ask again. */
  lookup(guestOffset: number): Table | null | Promise<Table> {
    const { image } = this;
    const offset = image.l2Offset(Math.floor(guestOffset / image.geometry.l2Coverage));
    if (offset === 0) return null;
    return image.l2.peek(offset) ?? image.l2.load(offset);
  }

  /** The same, made when missing, and ours alone (an L2 table that is shared is copied). */
  forWriting(guestOffset: number): Eventually<Table | void> {
    const { image, allocator } = this;
    const index = Math.floor(guestOffset / image.geometry.l2Coverage);
    const offset = image.l2Offset(index);
    const copied = isCopied(offset === 0 ? 0 : image.l1View.getUint32(index * 8));
    const old = offset === 0 ? null : image.l2.load(offset);
    if (old instanceof Promise) return old;
    if (old !== null && copied) return old;
    image.event(old === null ? 'l2_alloc_write' : 'l2_alloc_cow_read');
    const run = allocator.take(1);
    if (run instanceof Promise) return run;
    const table = image.l2.add(run.offset, old?.bytes.slice());
    image.setL1(index, run.offset);
    if (old !== null) {
      image.overlaps.removeL2(old.offset);
      image.l2.drop(old);
      this.refcounts.free(old.offset, 1, false);
    }
    return table;
  }

  /**
   * Host clusters in a row for `most` guest clusters from `first` on, at least one; a promise: wait
   * and ask again. In a data file they are where the guest has them, and nothing counts them.
   */
  takeData(first: number, most: number): ClusterRun | Promise<void> {
    if (!this.image.hasDataFile) return this.allocator.take(most);
    return { offset: first * this.image.clusterSize, clusters: most };
  }

  /** Gives back what takeData() gave, when it was never linked. */
  undoData(hostOffset: number, clusters: number): void {
    if (!this.image.hasDataFile) this.refcounts.undo(hostOffset, clusters);
  }

  /** Where the entry of a guest cluster begins in the table that covers it, in bytes. */
  entryAt(guestCluster: number): number {
    const { l2Entries, l2EntryBytes } = this.image.geometry;
    return (guestCluster % l2Entries) * l2EntryBytes;
  }

  /** Replaces the entry of a guest cluster in the table that covers it; frees nothing. */
  setEntry(table: Table, guestCluster: number, entry: L2Entry): void {
    const { image } = this;
    this.#put(table, this.entryAt(guestCluster), entry);
    image.l2.touch(table, this.entryAt(guestCluster), image.geometry.l2EntryBytes);
    if (image.watchers.size > 0) image.entriesChanged(guestCluster, guestCluster + 1);
  }

  #put({ view }: Table, at: number, entry: L2Entry): void {
    view.setUint32(at, entry.hi);
    view.setUint32(at + 4, entry.lo);
    if (this.image.geometry.l2EntryBytes !== 16) return;
    view.setUint32(at + 8, entry.zeroes);
    view.setUint32(at + 12, entry.allocated);
  }

  /** Whether nothing was ever said of these guest clusters, all in the table. */
  isEmpty({ bytes }: Table, { first, end }: Clusters): boolean {
    const at = this.entryAt(first);
    return isZero(bytes.subarray(at, at + (end - first) * this.image.geometry.l2EntryBytes));
  }

  /** Gives empty entries their first content: host clusters in a row, or (null) zeroes. */
  setEmpty(table: Table, { first, end }: Clusters, hostOffset: number | null): void {
    const { image } = this;
    const size = image.geometry.l2EntryBytes;
    const at = this.entryAt(first);
    const until = at + (end - first) * size;
    if (hostOffset === null) {
      this.#put(table, at, zeroEntry(image.geometry));
      repeatFirst(table.bytes.subarray(at, until), size);
    } else {
      for (let to = at, host = hostOffset; to < until; to += size, host += image.clusterSize) {
        this.#put(table, to, ownedEntry(host));
      }
    }
    image.l2.touch(table, at, until - at);
    if (image.watchers.size > 0) image.entriesChanged(first, end);
  }

  /** setEntry(), and what the old entry held becomes free. */
  replaceEntry(
    table: Table,
    guestCluster: number,
    change: { readonly entry: L2Entry; readonly punch: boolean },
  ): void {
    const at = this.entryAt(guestCluster);
    const hi = table.view.getUint32(at);
    const lo = table.view.getUint32(at + 4);
    this.setEntry(table, guestCluster, change.entry);
    this.freeEntry(hi, lo, change.punch);
  }

  /**
   * Drops what an entry that was just replaced held: a cluster, or bytes of one or two. What a bad
   * entry names may be metadata or somebody else's: it is neither emptied nor freed.
   */
  freeEntry(hi: number, lo: number, punch: boolean): void {
    const { image, refcounts } = this;
    const { clusterSize, geometry } = image;
    if (image.hasDataFile) return;
    const kind = image.entryKind(hi, lo);
    if (kind === EntryKind.compressed) {
      const offset = compressedHostOffset(hi, lo, geometry.clusterBits);
      const length = compressedLength(hi, lo, geometry.clusterBits);
      const first = Math.floor(offset / clusterSize);
      const last = Math.floor((offset + length - 1) / clusterSize);
      refcounts.free(first * clusterSize, last - first + 1, false);
    } else if (kind === EntryKind.data || kind === EntryKind.zeroAllocated) {
      const offset = entryHostOffset(hi, lo);
      if (offset % clusterSize !== 0) {
        image.tell(`Cannot free unaligned cluster ${shownHex(offset)}`);
      } else if (!image.overlaps.isMetadata(offset, clusterSize)) {
        refcounts.free(offset, 1, punch && isCopied(hi));
      }
    }
  }

  /** Waits for room among the dirty tables; undefined when there is. */
  makeRoom(): Promise<void> | undefined {
    return this.flusher.isCrowded ? this.flusher.flush(false) : undefined;
  }

  /** Drops every cache and reads the top-level tables again; everything must be flushed. */
  async reload(): Promise<void> {
    if (!this.flusher.isClean) {
      throw new BlockError('invalid-state', `${this.image.label}: metadata is not flushed`);
    }
    this.image.adopt(await this.image.structures.reload());
    this.allocator.reset();
  }

  #growTable(blockCount: number): Promise<void> {
    this.#growing ??= growRefcountTable(this, blockCount).finally(() => {
      this.#growing = null;
    });
    return this.#growing;
  }
}

/** Fills all with the first `size` bytes: the runs of a sparse image are long. */
function repeatFirst(bytes: Uint8Array, size: number): void {
  for (let done = size; done < bytes.length; done *= 2) {
    bytes.copyWithin(done, 0, Math.min(done, bytes.length - done));
  }
}
