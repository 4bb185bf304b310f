// SPDX-License-Identifier: Apache-2.0
// Writes guest data: in place where the cluster is ours alone, else into newly taken clusters.
//
// In place: one host write, inline when the L2 table is cached. Allocating: as many clusters as
// follow each other in guest and host are one piece. The piece locks its guest clusters, its data
// is written first (with the rest of a partly written cluster filled from what the guest sees
// there, in the same host write where that is small), and only then its L2 entries are linked in
// memory. With extended L2 entries only subclusters are filled and linked: those the request
// touches, and what the old cluster holds when another one takes its place. A piece that fails
// gives its clusters back; the guest still sees what was there before.

import { QCOW2_LIMITS, settle } from '../../../../base/index.js';
import type { Eventually } from '../../../../base/index.js';
import { EntryKind, entryIn, ownedEntry } from '../entries.js';
import type { L2Entry } from '../entries.js';
import { SECTOR_SIZE } from '../layout.js';
import type { DataPlace, MetadataStore, Qcow2Image, RangeLock, Table } from '../metadata/index.js';
import { RunPlan } from './plan.js';
import type { Reader } from './read.js';
import { nothing, runSteps } from './steps.js';
import type { Stepper } from './steps.js';
import { filledSpan, maskWithin, writtenEntry } from './subclusters.js';
import type { Span } from './subclusters.js';

/** The buffer of one write and the guest offset of its first byte. */
interface Source {
  readonly start: number;
  readonly buffer: Uint8Array;
}

/** Guest clusters on their way to new host clusters. */
interface Piece {
  readonly table: Table;
  readonly lock: RangeLock;
  readonly firstCluster: number;
  readonly clusters: number;
  readonly hostOffset: number;
  /** The host clusters belonged to the entries already (preallocated zeroes). */
  readonly reused: boolean;
  /** Guest bytes that are data in the host clusters afterwards, end exclusive. */
  readonly start: number;
  readonly end: number;
  /** Guest offset of `data`. */
  readonly offset: number;
  readonly data: Uint8Array;
}

export class Writer implements Stepper<Source> {
  stepLength = 0;
  readonly #store: MetadataStore;
  readonly #image: Qcow2Image;
  readonly #reader: Reader;
  readonly #plan: RunPlan;

  constructor(store: MetadataStore, reader: Reader) {
    this.#store = store;
    this.#image = store.image;
    this.#reader = reader;
    this.#plan = new RunPlan(store.image, true);
  }

  write(offset: number, buffer: Uint8Array): Eventually<void> {
    const { leases } = this.#image;
    const context = { start: offset, buffer };
    return runSteps(this, { offset, length: buffer.length }, { leases, context });
  }

  /** Zeroes as data, for what the format cannot say otherwise. */
  writeZeroData(offset: number, length: number): Eventually<void> {
    const most = QCOW2_LIMITS.zeroWriteBytes;
    const zeroes = new Uint8Array(Math.min(length, most));
    if (length <= most) return this.write(offset, zeroes);
    return this.#writeManyZeroes(offset, offset + length, zeroes);
  }

  step(offset: number, length: number, source: Source): Eventually<void> {
    this.stepLength = 0;
    const image = this.#image;
    image.assertWritable();
    const table = this.#store.lookup(offset);
    if (table instanceof Promise) return table.then(nothing);
    const plan = this.#plan;
    plan.find(table, offset, length);
    if (plan.kind === EntryKind.data && plan.copied) {
      this.#requireDataPlace(plan.hostOffset, plan.length);
      this.stepLength = plan.length;
      const part = partOf(source, offset, plan.length);
      return image.writeData('write_aio', plan, part);
    }
    return this.#store.makeRoom() ?? this.#allocating(offset, length, source);
  }

  #allocating(offset: number, length: number, source: Source): Eventually<void> {
    const image = this.#image;
    const { clusterSize } = image;
    const first = Math.floor(offset / clusterSize);
    const plan = this.#plan;
    const held = plan.kind === EntryKind.zeroAllocated || plan.kind === EntryKind.hosted;
    const reused = held && plan.copied;
    const reusedHost = plan.hostOffset - (offset % clusterSize);
    const reach = reused ? plan.length : this.#reach(offset, length);
    const wanted = Math.ceil((offset + reach) / clusterSize) - first;
    const conflict = image.locks.conflict(first, first + wanted);
    if (conflict !== null) return conflict;
    const table = this.#store.forWriting(offset);
    if (table instanceof Promise) return table.then(nothing);
    if (table === undefined) return undefined;
    let run = { offset: reusedHost, clusters: wanted };
    if (reused) this.#requireDataPlace(reusedHost, wanted * clusterSize);
    else {
      const taken = this.#store.takeData(first, wanted);
      if (taken instanceof Promise) return taken;
      run = taken;
    }
    // In a place of ours the data that follows is written by others meanwhile, without a lock: to
    // fill up a subcluster of that would undo their writes.
    const most = reused ? reach : length;
    const end = Math.min(offset + most, (first + run.clusters) * clusterSize);
    this.stepLength = end - offset;
    image.l2.pin(table);
    return this.#perform({
      table,
      lock: image.locks.acquire(first, first + run.clusters),
      firstCluster: first,
      clusters: run.clusters,
      hostOffset: run.offset,
      reused,
      ...this.#filled(table, { start: offset, end }, reused),
      offset,
      data: partOf(source, offset, end - offset),
    });
  }

  /** The guest bytes that a write of `span` makes data. */
  #filled(table: Table, span: Span, reused: boolean): Span {
    const { clusterSize, geometry } = this.#image;
    const first = Math.floor(span.start / clusterSize);
    const last = Math.ceil(span.end / clusterSize) - 1;
    if (geometry.subclustersPerCluster === 1) {
      return { start: first * clusterSize, end: (last + 1) * clusterSize };
    }
    const oldOf = (cluster: number): L2Entry | null =>
      reused ? null : entryIn(table.view, this.#store.entryAt(cluster), geometry);
    const { start } = filledSpan(span, { cluster: first, old: oldOf(first) }, geometry);
    const { end } = filledSpan(span, { cluster: last, old: oldOf(last) }, geometry);
    return { start, end };
  }

  /** Guest bytes from the plan's run on that need new clusters, within the L2 table. */
  #reach(offset: number, length: number): number {
    const plan = this.#plan;
    const inTable = this.#image.geometry.l2Coverage - (offset % this.#image.geometry.l2Coverage);
    const most = Math.min(length, inTable);
    let reach = plan.length;
    while (reach < most) {
      const table = this.#store.lookup(offset + reach);
      if (table instanceof Promise) break;
      plan.find(table, offset + reach, most - reach);
      if (plan.copied) break;
      reach += plan.length;
    }
    return reach;
  }

  #perform(piece: Piece): Eventually<void> {
    let written: Eventually<void>;
    try {
      written = this.#writeData(this.#image.storesTail ? piece : this.#clipped(piece));
    } catch (error) {
      this.#giveUp(piece);
      throw error;
    }
    if (!(written instanceof Promise)) return this.#link(piece);
    return written.then(
      () => this.#link(piece),
      (error: unknown) => {
        this.#giveUp(piece);
        throw error;
      },
    );
  }

  /** The data file is no longer than the image: nothing is written past the end of that. */
  #clipped(piece: Piece): Piece {
    // What is written itself may lie beyond: the image is about to grow.
    const least = Math.max(this.#reader.end, piece.offset + piece.data.length);
    const end = Math.min(piece.end, least);
    return end === piece.end ? piece : { ...piece, end };
  }

  #writeData(piece: Piece): Eventually<void> {
    const image = this.#image;
    const { clusterSize } = image;
    const head = piece.offset - piece.start;
    const total = piece.end - piece.start;
    const tail = total - head - piece.data.length;
    const hostOffset = piece.hostOffset + piece.start - piece.firstCluster * clusterSize;
    const place = { hostOffset, guestOffset: piece.start };
    if ((head === 0 && tail === 0) || this.#restIsZero(piece, head, tail)) {
      if (head > 0 || tail > 0) image.event('cluster_alloc_space');
      return image.writeData('write_aio', placeBehind(place, head), piece.data);
    }
    if (piece.clusters > 2 && total > QCOW2_LIMITS.joinedWriteBytes) {
      return this.#writeInThree(piece, head, tail);
    }
    const joined = new Uint8Array(total);
    joined.set(piece.data, head);
    const filled = this.#fill(piece, joined.subarray(0, head), joined.subarray(total - tail));
    return settle(settle(filled, () => image.point('write_aio')), () =>
      image.writeData('cow_write', place, joined),
    );
  }

  /**
   * The clusters lie past the end of the file, where nothing was ever written, and what the
   * request leaves of them is zeroes to the guest: whole sectors of data are all there is to write.
   */
  #restIsZero(piece: Piece, head: number, tail: number): boolean {
    const image = this.#image;
    const { offset, data } = piece;
    // Zeroes of the file are not zeroes that were encrypted.
    if (image.cipher !== null) return false;
    if (piece.reused || piece.hostOffset < image.data.length) return false;
    if (offset % SECTOR_SIZE !== 0 || data.length % SECTOR_SIZE !== 0) return false;
    const end = offset + data.length;
    if (head > 0 && !this.#readsAsZeroes(piece.table, offset - head, head)) return false;
    return tail === 0 || end >= this.#reader.end || this.#readsAsZeroes(piece.table, end, tail);
  }

  /** Nothing of a part of one cluster is stored in this layer or the one behind. */
  #readsAsZeroes(table: Table, offset: number, length: number): boolean {
    const { backing } = this.#image;
    this.#plan.find(table, offset, length);
    if (this.#plan.length < length) return false;
    const { kind } = this.#plan;
    if (kind === EntryKind.unallocated || kind === EntryKind.hosted) {
      return backing === null || backing.length <= offset;
    }
    return kind === EntryKind.zero || kind === EntryKind.zeroAllocated;
  }

  /** The bytes of the piece's first and last cluster that the request does not write. */
  #fill(piece: Piece, head: Uint8Array, tail: Uint8Array): Eventually<void> {
    const first = settle(this.#image.point('cow_read'), () =>
      head.length === 0
        ? undefined
        : this.#reader.read(piece.start, head),
    );
    if (tail.length === 0) return first;
    return settle(first, () => this.#reader.read(piece.end - tail.length, tail));
  }

  /** Large pieces: the middle goes out from the caller's buffer. */
  async #writeInThree(piece: Piece, head: number, tail: number): Promise<void> {
    const image = this.#image;
    const { clusterSize } = image;
    const base = piece.firstCluster * clusterSize;
    const first = new Uint8Array(head === 0 ? 0 : base + clusterSize - piece.start);
    const lastStart = base + (piece.clusters - 1) * clusterSize;
    const last = new Uint8Array(tail === 0 ? 0 : piece.end - lastStart);
    const start = head === 0 ? 0 : first.length - head;
    const end = piece.data.length - (last.length - tail);
    first.set(piece.data.subarray(0, start), head);
    last.set(piece.data.subarray(end));
    await this.#fill(piece, first.subarray(0, head), last.subarray(last.length - tail));
    await image.point('cow_write');
    const hostOffset = piece.hostOffset + piece.start - base;
    const place = { hostOffset, guestOffset: piece.start };
    if (head > 0) await image.writeData(null, place, first);
    const middle = placeBehind(place, first.length);
    await image.writeData('write_aio', middle, piece.data.subarray(start, end));
    if (tail > 0) await image.writeData(null, placeBehind(middle, end - start), last);
  }

  #link(piece: Piece): void {
    const { clusterSize, geometry } = this.#image;
    const { passDiscardOther } = this.#image.policies;
    for (let index = 0; index < piece.clusters; index += 1) {
      const guestCluster = piece.firstCluster + index;
      let entry = ownedEntry(piece.hostOffset + index * clusterSize);
      if (geometry.subclustersPerCluster > 1) {
        const at = this.#store.entryAt(guestCluster);
        const old = entryIn(piece.table.view, at, geometry);
        entry = writtenEntry(old, entry, maskWithin(piece, guestCluster, geometry));
      }
      if (piece.reused) this.#store.setEntry(piece.table, guestCluster, entry);
      else {
        this.#store.replaceEntry(piece.table, guestCluster, { entry, punch: passDiscardOther });
      }
    }
    this.#end(piece);
  }

  #giveUp(piece: Piece): void {
    if (!piece.reused) this.#store.undoData(piece.hostOffset, piece.clusters);
    this.#end(piece);
  }

  #end(piece: Piece): void {
    this.#image.l2.unpin(piece.table);
    this.#image.locks.release(piece.lock);
  }

  #requireDataPlace(hostOffset: number, length: number): void {
    const hit = this.#image.dataOverlap(hostOffset, length);
    if (hit === null) return;
    throw this.#image.overlapError(hit, 'data cluster', { offset: hostOffset, length });
  }

  async #writeManyZeroes(offset: number, end: number, zeroes: Uint8Array): Promise<void> {
    for (let at = offset; at < end; at += zeroes.length) {
      await this.write(at, zeroes.subarray(0, Math.min(zeroes.length, end - at)));
    }
  }
}

function placeBehind({ hostOffset, guestOffset }: DataPlace, bytes: number): DataPlace {
  return { hostOffset: hostOffset + bytes, guestOffset: guestOffset + bytes };
}

function partOf(source: Source, offset: number, length: number): Uint8Array {
  if (length === source.buffer.length) return source.buffer;
  const at = offset - source.start;
  return source.buffer.subarray(at, at + length);
}
