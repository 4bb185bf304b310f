// SPDX-License-Identifier: Apache-2.0
// Discards and zeroes: changes of L2 entries without data.
//
// Version 3 says "reads as zeroes" in the entry. Version 2 cannot: without a backing file an
// unallocated entry reads as zeroes, with one (be it named in the header and not open) only
// written zeroes do, and a discard does nothing (it would uncover the backing file). A discard
// touches whole clusters only, zeroes whole subclusters where there are such; the image's last
// cluster counts as whole when the range reaches the end. A part of a compressed cluster can only
// be written. All entries of one L2 table change in one turn, so no lock is held, but held locks
// are waited for.

import { BlockError, settle } from '../../../../base/index.js';
import type { Eventually } from '../../../../base/index.js';
import { RequestFlag, zeroRequest } from '../../../../block/index.js';
import type { Node } from '../../../../block/index.js';
import { viewStatus } from '../../../../block/copy/index.js';
import {
  ALL_SUBCLUSTERS,
  EntryKind,
  entryIn,
  isCompressed,
  UNALLOCATED_ENTRY,
  zeroEntry,
} from '../entries.js';
import type { Clusters, MetadataStore, Qcow2Image, Table } from '../metadata/index.js';
import { discardData, droppedData } from './data-file.js';
import { RunPlan } from './plan.js';
import { nothing, runSteps } from './steps.js';
import type { Stepper } from './steps.js';
import { erasedEntry, maskWithin } from './subclusters.js';
import type { Erasure, Span } from './subclusters.js';
import type { Writer } from './write.js';

interface Change extends Erasure {
  /** Nothing is written: what an entry cannot say is refused. */
  readonly noFallback?: boolean;
}

interface Edge {
  readonly offset: number;
  readonly length: number;
  readonly flags: number;
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
    const { start, end } = this.#whole(image.clusterSize, { offset, length });
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
    const { start, end } = this.#whole(image.geometry.subclusterSize, { offset, length });
    const sayable = image.version >= 3 || (image.holesStayZero && unmap);
    if (!sayable || start >= end) return this.#zeroEdge(offset, length, flags);
    let change = unmap ? ZERO_UNMAP : ZERO_KEEP;
    if ((flags & RequestFlag.noFallback) !== 0) change = { ...change, noFallback: true };
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
    const { clusterSize } = this.#image;
    const whole = Math.ceil(length / clusterSize) * clusterSize;
    return this.#change({ offset, length: whole }, ZERO_UNMAP);
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
    const first = Math.floor(offset / clusterSize);
    const end = Math.ceil((offset + reach) / clusterSize);
    const conflict = image.locks.conflict(first, end);
    if (conflict !== null) return conflict;
    const present = this.#store.lookup(offset);
    if (present instanceof Promise) return present.then(nothing);
    if (present !== null || this.#needsEntry(EntryKind.unallocated, change)) {
      const table = this.#store.forWriting(offset);
      if (table instanceof Promise) return table.then(nothing);
      if (table === undefined) return undefined;
      const span = { start: offset, end: offset + reach };
      const dropped = this.#punches(change) ? droppedData(this.#store, table, span) : null;
      const whole = offset % clusterSize === 0 && span.end % clusterSize === 0;
      if (geometry.subclustersPerCluster === 1 || whole) {
        this.#applyAll(table, { first, end }, change);
        this.stepLength = reach;
      } else {
        const erased = this.#eraseSubclusters(table, span, change);
        if (erased instanceof Promise) return erased;
      }
      return dropped === null ? undefined : discardData(image, dropped, { first, end });
    }
    this.stepLength = reach;
    return undefined;
  }

  /** Goes as far as the table itself can say it. */
  #eraseSubclusters(table: Table, span: Span, change: Change): Eventually<void> {
    const { clusterSize, geometry } = this.#image;
    let at = span.start;
    for (let cluster = Math.floor(at / clusterSize); at < span.end; cluster += 1) {
      const next = Math.min(span.end, (cluster + 1) * clusterSize);
      const mask = maskWithin(span, cluster, geometry);
      const part = mask !== ALL_SUBCLUSTERS && change.holes !== true;
      if (part && isCompressed(table.view.getUint32(this.#store.entryAt(cluster)))) {
        this.stepLength = at - span.start;
        if (at > span.start) return undefined;
        this.stepLength = next - at;
        const flags = change.noFallback === true ? RequestFlag.noFallback : 0;
        return this.#writeEdge({ offset: at, length: next - at, flags });
      }
      this.#erase(table, { cluster, mask }, change);
      at = next;
    }
    this.stepLength = at - span.start;
    return undefined;
  }

  #erase(table: Table, which: { cluster: number; mask: number }, change: Change): void {
    const { geometry, backing } = this.#image;
    const { cluster, mask } = which;
    const old = entryIn(table.view, this.#store.entryAt(cluster), geometry);
    const entry = erasedEntry(old, mask, { ...change, geometry, backed: backing !== null });
    if (entry === old) return;
    if (entry.hi !== 0 || entry.lo !== 0 || (old.hi === 0 && old.lo === 0)) {
      this.#store.setEntry(table, cluster, entry);
    } else {
      this.#store.replaceEntry(table, cluster, { entry, punch: this.#punches(change) });
    }
  }

  #change(range: { offset: number; length: number }, change: Change): Eventually<void> {
    return runSteps(this, range, { leases: this.#image.leases, context: change });
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
    if (image.geometry.subclustersPerCluster > 1) {
      this.#erase(table, { cluster, mask: ALL_SUBCLUSTERS }, change);
      return;
    }
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
    const { passDiscardRequest } = this.#image.policies;
    return change.unmap && passDiscardRequest;
  }

  /**
   * The whole units in a range. One that reaches the end of the image takes in all of the last
   * unit there, or of the last cluster if it covers that from its start; a last unit that is not
   * whole counts by itself (as the reference cuts requests).
   */
  #whole(unit: number, { offset, length }: { offset: number; length: number }): Span {
    const { clusterSize, size } = this.#image;
    const end = offset + length;
    const start = Math.ceil(offset / unit) * unit;
    if (end < size) return { start, end: Math.floor(end / unit) * unit };
    const from = end % unit === 0 ? start : end - (end % unit);
    const last = from <= Math.floor((end - 1) / clusterSize) * clusterSize ? clusterSize : unit;
    return { start, end: Math.ceil(end / last) * last };
  }

  /**
   * A range that the entries cannot say: where it reads as zeroes its clusters say so from now on,
   * whatever backing file comes below them; else written zeroes.
   */
  #zeroEdge(offset: number, length: number, flags: number): Eventually<void> {
    if (length <= 0) return undefined;
    const { size, version, geometry } = this.#image;
    const unit = geometry.subclusterSize;
    const first = unit - (offset % unit);
    if (version >= 3 && length > first) {
      return settle(this.#zeroEdge(offset, first, flags), () =>
        this.#zeroEdge(offset + first, length - first, flags),
      );
    }
    const start = Math.floor(offset / unit) * unit;
    const end = Math.ceil((offset + length) / unit) * unit;
    const zero = this.#readsAsZeroes(start, Math.min(size, end) - start);
    return settle(zero, (known) => {
      if (!known) return this.#edgeOverBacking({ start, end }, { offset, length, flags });
      return version < 3 ? undefined : this.#claimHoles({ start, end });
    });
  }

  /** A cluster that shows zeroes of the backing file beside the edge can say so all over. */
  #edgeOverBacking(unit: Span, edge: Edge): Eventually<void> {
    const { backing, version } = this.#image;
    if (backing === null || version < 3) return this.#writeEdge(edge);
    return this.#claimShown(unit, { edge, backing });
  }

  async #claimShown(
    unit: Span,
    { edge, backing }: { readonly edge: Edge; readonly backing: Node },
  ): Promise<void> {
    const end = Math.min(this.#image.size, unit.end);
    const edgeEnd = edge.offset + edge.length;
    const isOurs = await this.#readsAsZeroes(unit.start, end - unit.start, true);
    if (
      isOurs &&
      (await showsZeroes(backing, unit.start, edge.offset - unit.start)) &&
      (await showsZeroes(backing, edgeEnd, end - edgeEnd))
    ) {
      await this.#claimHoles(unit);
      // Another write may have come in between: its data stayed as it is.
      if (await this.#readsAsZeroes(edge.offset, edge.length)) return;
    }
    await this.#writeEdge(edge);
  }

  #claimHoles({ start, end }: Span): Eventually<void> {
    return this.#change({ offset: start, length: end - start }, ZERO_HOLES);
  }

  #writeEdge({ offset, length, flags }: Edge): Eventually<void> {
    if ((flags & RequestFlag.noFallback) !== 0) {
      throw new BlockError('unsupported', `${this.#image.label}: zeroes need data to be written`, {
        node: this.#image.name,
        offset,
      });
    }
    return this.#writer.writeZeroData(offset, length);
  }

  #holeIsZero(offset: number): boolean {
    const { version, backing, holesStayZero } = this.#image;
    return version >= 3 ? backing === null || backing.length <= offset : holesStayZero;
  }

  /** `anyHole`: what lies behind a hole does not count. */
  #readsAsZeroes(offset: number, length: number, anyHole = false): Eventually<boolean> {
    const plan = this.#plan;
    for (let at = offset; at < offset + length; at += plan.length) {
      const table = this.#store.lookup(at);
      if (table instanceof Promise) {
        return table.then(() => this.#readsAsZeroes(offset, length, anyHole));
      }
      plan.find(table, at, offset + length - at);
      const zero = plan.kind === EntryKind.zero || plan.kind === EntryKind.zeroAllocated;
      const shows = plan.kind === EntryKind.unallocated || plan.kind === EntryKind.hosted;
      const hole = shows && (anyHole || this.#holeIsZero(at));
      if (!zero && !hole) return false;
    }
    return true;
  }
}

/** Whether all of a range reads as zeroes, by what the images say. */
async function showsZeroes(node: Node, offset: number, length: number): Promise<boolean> {
  const end = Math.min(offset + length, node.length);
  for (let at = offset; at < end; ) {
    const status = await viewStatus(node, at, end - at);
    if (!status.zero) return false;
    at += status.length;
  }
  return true;
}
