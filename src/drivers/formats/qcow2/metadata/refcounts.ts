// SPDX-License-Identifier: Apache-2.0
// Refcounts in memory, and the clusters on their way to becoming free.
//
// Refcount blocks in memory only ever hold increments over what durable L2 tables need, so they may
// be written at any time: a crash leaves leaks at worst. A decrement therefore waits in a list:
//   pending  the L2 or L1 entry that dropped the cluster changed in memory only;
//   (cut)    a metadata flush carries that change and keeps the free until it is synced;
//   ready    durable, but a lease as old as the free may still use the cluster.
// From `ready` the cluster is punched in the file (where asked for) and then its refcount goes
// down, in this order, because at refcount 0 somebody may take it at once.

import { BlockError } from '../../../../base/index.js';
import type { Eventually } from '../../../../base/index.js';
import { discardRequest } from '../../../../block/index.js';
import { SECTOR_SIZE } from '../layout.js';
import type { Qcow2Image } from './image.js';
import { hex, shownHex } from './image.js';
import type { Table } from './table-cache.js';

/** A run of host clusters, each to lose one reference. */
export interface Free {
  offset: number;
  clusters: number;
  stamp: number;
  readonly punch: boolean;
}

const TWO_32 = 0x1_0000_0000;

/** Refcount number `index` of a block; widths below 8 bits count from the low end of each byte. */
export function readRefcount(view: DataView, order: number, index: number): number {
  if (order === 4) return view.getUint16(index * 2);
  if (order < 3) {
    const bits = 1 << order;
    const shift = (index * bits) & 7;
    return (view.getUint8((index * bits) >>> 3) >>> shift) & ((1 << bits) - 1);
  }
  if (order === 3) return view.getUint8(index);
  if (order === 5) return view.getUint32(index * 4);
  return view.getUint32(index * 8) * TWO_32 + view.getUint32(index * 8 + 4);
}

export interface RefcountPlace {
  readonly order: number;
  readonly index: number;
}

export function writeRefcount(view: DataView, place: RefcountPlace, value: number): void {
  const { order, index } = place;
  if (order === 4) view.setUint16(index * 2, value);
  else if (order < 3) {
    const bits = 1 << order;
    const shift = (index * bits) & 7;
    const mask = ((1 << bits) - 1) << shift;
    const byte = (index * bits) >>> 3;
    view.setUint8(byte, (view.getUint8(byte) & ~mask) | (value << shift));
  } else if (order === 3) view.setUint8(index, value);
  else if (order === 5) view.setUint32(index * 4, value);
  else {
    view.setUint32(index * 8, Math.floor(value / TWO_32));
    view.setUint32(index * 8 + 4, value % TWO_32);
  }
}

export class Refcounts {
  readonly #image: Qcow2Image;
  #pending: Free[] = [];
  #ready: Free[] = [];
  /** What of #ready is dealt with already. */
  #readyDone = 0;
  /** Ready but for a lease, oldest first. */
  #leased: Free[] = [];
  #drain: Promise<void> | null = null;
  /** Called with the cluster index when a refcount went down to 0. */
  onFreed: (cluster: number) => void = () => undefined;

  constructor(image: Qcow2Image) {
    this.#image = image;
    image.leases.onLeave = () => this.#leaseEnded();
  }

  /** Clusters one block describes. */
  get blockEntries(): number {
    return this.#image.geometry.refcountBlockEntries;
  }

  /** Blocks that the refcount table has room for. */
  get tableEntries(): number {
    return this.#image.refcountTable.length / 8;
  }

  get hasPending(): boolean {
    return this.#pending.length > 0;
  }

  /** Offset of a block, 0 when there is none. Throws on a bad table entry. */
  blockOffset(blockIndex: number): number {
    const image = this.#image;
    if (blockIndex >= this.tableEntries) return 0;
    const hi = image.refcountTableView.getUint32(blockIndex * 8);
    const lo = image.refcountTableView.getUint32(blockIndex * 8 + 4);
    const offset = hi * TWO_32 + lo;
    if (offset % image.clusterSize !== 0 || offset > Number.MAX_SAFE_INTEGER) {
      const place = hex(hi, lo);
      const finding =
        `refcount table entry ${blockIndex}: refcount block offset ${place} is invalid`;
      // Reserved bits are no matter of the reference, which has no words for them.
      if ((offset - (offset % SECTOR_SIZE)) % image.clusterSize === 0) {
        throw image.corruptError(finding);
      }
      const message =
        `Refblock offset ${place} unaligned (reftable index: ${shownHex(blockIndex)})`;
      throw image.entryError(finding, message);
    }
    return offset;
  }

  /** Null: no such block, all its refcounts are 0. Undefined: must be loaded first. */
  peek(blockIndex: number): Table | null | undefined {
    const offset = this.blockOffset(blockIndex);
    return offset === 0 ? null : this.#image.refcountBlocks.peek(offset);
  }

  load(blockIndex: number): Eventually<Table | null> {
    const offset = this.blockOffset(blockIndex);
    return offset === 0 ? null : this.#image.refcountBlocks.load(offset);
  }

  get(block: Table, index: number): number {
    return readRefcount(block.view, this.#image.geometry.refcountOrder, index);
  }

  set(block: Table, index: number, value: number): void {
    writeRefcount(block.view, { order: this.#image.geometry.refcountOrder, index }, value);
    this.#image.refcountBlocks.touch(block);
  }

  /** Drops one reference of each cluster of the run once nothing on disk or in flight needs it. */
  free(offset: number, clusters: number, punch: boolean): void {
    this.#image.event('cluster_free');
    this.#image.event('refblock_alloc');
    const stamp = this.#image.leases.stamp();
    const last = this.#pending[this.#pending.length - 1];
    const end = last === undefined ? -1 : last.offset + last.clusters * this.#image.clusterSize;
    if (last !== undefined && end === offset && last.punch === punch) {
      last.clusters += clusters;
      last.stamp = stamp;
    } else this.#pending.push({ offset, clusters, stamp, punch });
  }

  /** Takes back an increment that no table ever told of. */
  undo(offset: number, clusters: number): void {
    this.#ready.push({ offset, clusters, stamp: -1, punch: false });
    this.drainLater();
  }

  takePending(): Free[] {
    const frees = this.#pending;
    this.#pending = [];
    return frees;
  }

  /** The flush that carried them failed. */
  putBack(frees: readonly Free[]): void {
    this.#pending = [...frees, ...this.#pending];
  }

  /** What dropped them is durable. */
  release(frees: readonly Free[]): void {
    for (const free of frees) this.#ready.push(free);
  }

  /** As drain(), for callers who do not wait. */
  drainLater(): void {
    const drained = this.drain();
    if (drained instanceof Promise) drained.catch(rethrowAssertion);
  }

  /** Applies what is ready; what a lease holds back, or cannot be loaded, stays. */
  drain(): Eventually<void> {
    if (this.#drain !== null) return this.#drain;
    for (;;) {
      const free = this.#nextReady();
      if (free === null) return undefined;
      const step = this.#apply(free);
      if (step instanceof Promise) {
        this.#drain = this.#drainOn(step, free).finally(() => {
          this.#drain = null;
        });
        return this.#drain;
      }
    }
  }

  async #drainOn(first: Promise<void>, current: Free): Promise<void> {
    let step: Eventually<void> = first;
    let free: Free | null = current;
    while (free !== null) {
      try {
        await step;
      } catch (error) {
        // Not decremented: the cluster leaks, which check can tell and repair.
        if (!(error instanceof BlockError)) throw error;
      }
      free = this.#nextReady();
      if (free !== null) step = this.#apply(free);
    }
  }

  /** Takes the part within one refcount block off the first run that no lease holds. */
  #nextReady(): Free | null {
    const { leases, clusterSize } = this.#image;
    for (; this.#readyDone < this.#ready.length; this.#readyDone += 1) {
      const free = this.#ready[this.#readyDone] as Free;
      if (!leases.isOver(free.stamp)) {
        this.#leased.push(free);
        continue;
      }
      const first = Math.floor(free.offset / clusterSize);
      const room = this.blockEntries - (first % this.blockEntries);
      if (free.clusters <= room) {
        this.#readyDone += 1;
        return free;
      }
      const part: Free = { ...free, clusters: room };
      free.offset += room * clusterSize;
      free.clusters -= room;
      return part;
    }
    this.#ready = [];
    this.#readyDone = 0;
    return null;
  }

  #leaseEnded(): void {
    const oldest = this.#leased[0];
    if (oldest === undefined || !this.#image.leases.isOver(oldest.stamp)) return;
    const frees = this.#leased;
    this.#leased = [];
    this.release(frees);
    this.drainLater();
  }

  #apply(free: Free): Eventually<void> {
    const cluster = Math.floor(free.offset / this.#image.clusterSize);
    let block: Table | null | undefined;
    try {
      block = this.peek(Math.floor(cluster / this.blockEntries));
    } catch (error) {
      if (error instanceof BlockError) return undefined;
      throw error;
    }
    if (block === undefined || (free.punch && block !== null)) return this.#applySlowly(free);
    this.#decrement(block, free);
    return undefined;
  }

  async #applySlowly(free: Free): Promise<void> {
    const image = this.#image;
    const first = Math.floor(free.offset / image.clusterSize);
    const blockIndex = Math.floor(first / this.blockEntries);
    const block = await this.load(blockIndex);
    if (block !== null && free.punch && this.#allSingle(block, free)) await this.#punch(free);
    this.#decrement(await this.load(blockIndex), free);
  }

  #allSingle(block: Table, free: Free): boolean {
    const first = Math.floor(free.offset / this.#image.clusterSize) % this.blockEntries;
    for (let index = first; index < first + free.clusters; index += 1) {
      if (this.get(block, index) !== 1) return false;
    }
    return true;
  }

  async #punch(free: Free): Promise<void> {
    const { file, clusterSize } = this.#image;
    const length = Math.min(free.clusters * clusterSize, file.length - free.offset);
    if (length <= 0) return;
    try {
      await file.discard(discardRequest(free.offset, length));
    } catch (error) {
      // A hint to the host: the cluster becomes free all the same.
      if (!(error instanceof BlockError)) throw error;
    }
  }

  #decrement(block: Table | null, free: Free): void {
    const image = this.#image;
    const first = Math.floor(free.offset / image.clusterSize);
    for (let cluster = first; cluster < first + free.clusters; cluster += 1) {
      const index = cluster % this.blockEntries;
      const count = block === null ? 0 : this.get(block, index);
      if (block === null || count === 0) {
        const offset = cluster * image.clusterSize;
        const finding = `cluster at offset ${offset} has refcount 0 in use`;
        image.markCorrupt(finding, { message: finding, offset, size: image.clusterSize });
        return;
      }
      this.set(block, index, count - 1);
      if (count === 1) {
        image.freedCount += 1;
        this.onFreed(cluster);
      }
    }
  }
}

function rethrowAssertion(error: unknown): void {
  if (!(error instanceof BlockError)) throw error;
}
