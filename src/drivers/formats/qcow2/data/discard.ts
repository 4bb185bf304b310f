// SPDX-License-Identifier: Apache-2.0
// Discards and zeroes: changes of L2 entries without data.
//
// Version 3 says "reads as zeroes" in the entry. Version 2 cannot: without a backing file an
// unallocated entry reads as zeroes, with one (be it named in the header and not open) only
// written zeroes do, and a discard does nothing (it would uncover the backing file). A discard
// touches whole clusters only; the image's last cluster counts as whole when the range reaches the
// end. All entries of one L2 table change in one turn, so no lock is held, but held locks are
// waited for.

import { BlockError, settle } from '../../../../base/index.js';
import type { Eventually } from '../../../../base/index.js';
import { discardRequest, RequestFlag, zeroRequest } from '../../../../block/index.js';
import { EntryKind, UNALLOCATED_ENTRY, zeroEntry } from '../entries.js';
import type { Clusters, MetadataStore, Qcow2Image, Table } from '../metadata/index.js';
import { RunPlan } from './plan.js';
import { nothing, runSteps } from './steps.js';
import type { Stepper } from './steps.js';
import type { Writer } from './write.js';

interface Change {
  /** Discarded: an entry that is not allocated here and has no backing file stays as it is. */
  readonly discard: boolean;
  /** Host clusters are given up; otherwise they stay with the entry, preallocated. */
  readonly unmap: boolean;
  /** Only entries that are not allocated become others. */
  readonly holes?: boolean;
}

const DISCARD: Change = { discard: true, unmap: true };
const ZERO_UNMAP: Change = { discard: false, unmap: true };
const ZERO_KEEP: Change = { discard: false, unmap: false };
const ZERO_HOLES: Change = { discard: false, unmap: false, holes: true };

export class Eraser implements Stepper<Change> {
  stepLength = 0;
  readonly #store: MetadataStore;
  readonly #image: Qcow2Image;
  readonly #writer: Writer;
  readonly #plan: RunPlan;

  constructor(store: MetadataStore, writer: Writer) {
    this.#store = store;
    this.#image = store.image;
    this.#writer = writer;
    this.#plan = new RunPlan(store.image);
  }

  discard(offset: number, length: number): Eventually<void> {
    const image = this.#image;
    image.assertWritable();
    if (image.version < 3 && image.backing !== null) return undefined;
    const { start, end } = this.#wholeClusters(offset, length);
    if (start >= end) return undefined;
    const range = { offset: start, length: end - start };
    if (!image.dataFileRaw) return this.#change(range, DISCARD);
    return this.#discardRaw(range);
  }

  /** What cannot be punched stays: the file must hold what the guest sees. */
  async #discardRaw(range: { offset: number; length: number }): Promise<void> {
    try {
      await this.#zeroRaw(range, RequestFlag.mayUnmap | RequestFlag.noFallback);
    } catch (error) {
      if (error instanceof BlockError) return;
      throw error;
    }
    await this.#change(range, DISCARD);
  }

  /** The bytes of a raw data file, as far as it reaches. */
  #zeroRaw({ offset, length }: { offset: number; length: number }, flags: number) {
    const { data } = this.#image;
    const there = Math.min(length, data.length - offset);
    return there <= 0 ? undefined : data.writeZeroes(zeroRequest(offset, there, flags));
  }

  writeZeroes(offset: number, length: number, flags: number): Eventually<void> {
    const image = this.#image;
    image.assertWritable();
    if (!image.dataFileRaw) return this.#writeZeroes(offset, length, flags);
    const kept = flags & (RequestFlag.mayUnmap | RequestFlag.noFallback);
    return settle(this.#zeroRaw({ offset, length }, kept), () =>
      this.#writeZeroes(offset, length, flags),
    );
  }

  #writeZeroes(offset: number, length: number, flags: number): Eventually<void> {
    const image = this.#image;
    const unmap = (flags & RequestFlag.mayUnmap) !== 0;
    const { start, end } = this.#wholeClusters(offset, length);
    const sayable = image.version >= 3 || (image.holesStayZero && unmap);
    if (!sayable || start >= end) return this.#zeroEdge(offset, length, flags);
    const change = unmap ? ZERO_UNMAP : ZERO_KEEP;
    const head = this.#zeroEdge(offset, start - offset, flags);
    const middle = settle(head, () => this.#change({ offset: start, length: end - start }, change));
    return settle(middle, () => this.#zeroEdge(end, offset + length - end, flags));
  }

  /** As writeZeroes(), but what reads as zeroes already stays as it is. */
  hide(offset: number, length: number): Eventually<void> {
    return settle(this.#readsAsZeroes(offset, length), (known) =>
      known ? undefined : this.#writer.writeZeroData(offset, length),
    );
  }

  /** Makes whole clusters read as zeroes where the format can say so (v3, or no backing file). */
  zeroClusters(offset: number, length: number): Eventually<void> {
    return this.#change({ offset, length }, ZERO_UNMAP);
  }

  /** One cluster within this turn; its table is ours to write, and no lock covers the cluster. */
  zeroCluster(table: Table, cluster: number): void {
    this.#apply(table, cluster, ZERO_UNMAP);
  }

  step(offset: number, length: number, change: Change): Eventually<void> {
    this.stepLength = 0;
    const image = this.#image;
    const { clusterSize, geometry } = image;
    const room = this.#store.makeRoom();
    if (room !== undefined) return room;
    const reach = Math.min(length, geometry.l2Coverage - (offset % geometry.l2Coverage));
    const first = offset / clusterSize;
    const end = Math.ceil((offset + reach) / clusterSize);
    const conflict = image.locks.conflict(first, end);
    if (conflict !== null) return conflict;
    const present = this.#store.lookup(offset);
    if (present instanceof Promise) return present.then(nothing);
    if (present !== null || this.#needsEntry(EntryKind.unallocated, change)) {
      const table = this.#store.forWriting(offset);
      if (table instanceof Promise) return table.then(nothing);
      if (table === undefined) return undefined;
      const dropped = this.#dropsData(table, { first, end }, change);
      this.#applyAll(table, { first, end }, change);
      this.stepLength = reach;
      return dropped.length === 0 ? undefined : this.#discardData(dropped, { first, end });
    }
    this.stepLength = reach;
    return undefined;
  }

  #change(range: { offset: number; length: number }, change: Change): Eventually<void> {
    return runSteps(this, range, { leases: this.#image.leases, context: change });
  }

  /** Ranges of the data file that a change leaves unused: offset and length, in turn. */
  #dropsData(table: Table, { first, end }: Clusters, change: Change): number[] {
    const image = this.#image;
    const ranges: number[] = [];
    // A raw data file holds zeroes by now.
    if (!image.hasDataFile || image.dataFileRaw || !this.#punches(change)) return ranges;
    const { clusterSize, data } = image;
    for (let cluster = first; cluster < end; cluster += 1) {
      const at = this.#store.entryAt(cluster);
      const kind = image.entryKind(table.view.getUint32(at), table.view.getUint32(at + 4));
      if (kind !== EntryKind.data && kind !== EntryKind.zeroAllocated) continue;
      const offset = cluster * clusterSize;
      const length = Math.min(clusterSize, data.length - offset);
      if (length <= 0) break;
      const last = ranges.length - 2;
      if (last >= 0 && (ranges[last] ?? 0) + (ranges[last + 1] ?? 0) === offset) {
        ranges[last + 1] = (ranges[last + 1] ?? 0) + length;
      } else ranges.push(offset, length);
    }
    return ranges;
  }

  /** A later write of these clusters waits: its place is the same. Failing changes nothing. */
  async #discardData(ranges: readonly number[], { first, end }: Clusters): Promise<void> {
    const { data, locks } = this.#image;
    const lock = locks.acquire(first, end);
    try {
      for (let index = 0; index < ranges.length; index += 2) {
        const request = discardRequest(ranges[index] ?? 0, ranges[index + 1] ?? 0);
        await data.discard(request);
      }
    } catch (error) {
      if (!(error instanceof BlockError)) throw error;
    } finally {
      locks.release(lock);
    }
  }

  #needsEntry(kind: EntryKind, change: Change): boolean {
    const { version, backing } = this.#image;
    if (kind === EntryKind.zero) return false;
    if (kind !== EntryKind.unallocated) return true;
    return version >= 3 && (!change.discard || backing !== null);
  }

  #applyAll(table: Table, clusters: Clusters, change: Change): void {
    if (this.#image.version >= 3 && this.#store.isEmpty(table, clusters)) {
      const changes = this.#needsEntry(EntryKind.unallocated, change);
      if (changes) this.#store.setEmpty(table, clusters, null);
      return;
    }
    for (let cluster = clusters.first; cluster < clusters.end; cluster += 1) {
      this.#apply(table, cluster, change);
    }
  }

  #apply(table: Table, cluster: number, change: Change): void {
    const image = this.#image;
    const at = this.#store.entryAt(cluster);
    const hi = table.view.getUint32(at);
    const lo = table.view.getUint32(at + 4);
    const kind = image.entryKind(hi, lo);
    if (!this.#needsEntry(kind, change)) return;
    if (change.holes === true && kind !== EntryKind.unallocated) return;
    if (image.version < 3) {
      const entry = UNALLOCATED_ENTRY;
      this.#store.replaceEntry(table, cluster, { entry, punch: this.#punches(change) });
      return;
    }
    const keeps = kind === EntryKind.data || kind === EntryKind.zeroAllocated;
    if (!change.unmap && keeps) {
      const entry = { ...UNALLOCATED_ENTRY, hi, lo: (lo | 1) >>> 0 };
      if (kind === EntryKind.data) this.#store.setEntry(table, cluster, entry);
      return;
    }
    const entry = zeroEntry(image.geometry);
    this.#store.replaceEntry(table, cluster, { entry, punch: this.#punches(change) });
  }

  #punches(change: Change): boolean {
    const { passDiscardRequest } = this.#image;
    return change.unmap && passDiscardRequest;
  }

  #wholeClusters(offset: number, length: number): { start: number; end: number } {
    const { clusterSize, size } = this.#image;
    const end = offset + length;
    return {
      start: Math.ceil(offset / clusterSize) * clusterSize,
      end: end === size ? end : Math.floor(end / clusterSize) * clusterSize,
    };
  }

  /**
   * A range that the entries cannot say: where it reads as zeroes its clusters say so from now on,
   * whatever backing file comes below them; else written zeroes.
   */
  #zeroEdge(offset: number, length: number, flags: number): Eventually<void> {
    if (length <= 0) return undefined;
    const zero = this.#readsAsZeroes(offset, length);
    return settle(zero, (known) =>
      known ? this.#claimHoles(offset, length) : this.#writeEdge(offset, length, flags),
    );
  }

  #claimHoles(offset: number, length: number): Eventually<void> {
    const { version, clusterSize, size } = this.#image;
    if (version < 3) return undefined;
    const start = Math.floor(offset / clusterSize) * clusterSize;
    const end = Math.min(size, Math.ceil((offset + length) / clusterSize) * clusterSize);
    return this.#change({ offset: start, length: end - start }, ZERO_HOLES);
  }

  #writeEdge(offset: number, length: number, flags: number): Eventually<void> {
    if ((flags & RequestFlag.noFallback) !== 0) {
      throw new BlockError('unsupported', `${this.#image.label}: zeroes need data to be written`, {
        node: this.#image.name,
        offset,
      });
    }
    return this.#writer.writeZeroData(offset, length);
  }

  #holeIsZero(): boolean {
    const { version, backing, holesStayZero } = this.#image;
    return version >= 3 ? backing === null : holesStayZero;
  }

  #readsAsZeroes(offset: number, length: number): Eventually<boolean> {
    const plan = this.#plan;
    for (let at = offset; at < offset + length; at += plan.length) {
      const table = this.#store.lookup(at);
      if (table instanceof Promise) return table.then(() => this.#readsAsZeroes(offset, length));
      plan.find(table, at, offset + length - at);
      const zero = plan.kind === EntryKind.zero || plan.kind === EntryKind.zeroAllocated;
      const hole = plan.kind === EntryKind.unallocated && this.#holeIsZero();
      if (!zero && !hole) return false;
    }
    return true;
  }
}
