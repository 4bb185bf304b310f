// SPDX-License-Identifier: Apache-2.0
// Host space for lanes to fill, and linking it afterwards by compare-and-set.
//
// Whole clusters that are not ours alone get fresh host clusters; data clusters that are get
// written in place. Nothing is visible before link(). While a reservation is open every change of
// an L2 entry under it is noticed (EntryWatcher): that cluster is lost, the guest's state stays and
// the fresh cluster is given back. link() waits for writes in flight, then decides cluster by
// cluster in one turn. The reservation holds a lease until then.

import { assert, BlockError, QCOW2_LIMITS } from '../../../../base/index.js';
import { RequestFlag } from '../../../../block/index.js';
import type {
  PieceOutcome,
  ReservedPiece,
  TargetReservation,
  WrittenInPart,
} from '../../../../block/index.js';
import { EntryKind, ownedEntry } from '../entries.js';
import type { L2Entry } from '../entries.js';
import type {
  DataPlace,
  Clusters,
  EntryWatcher,
  MetadataStore,
  RangeLock,
  Table,
} from '../metadata/index.js';
import type { Eraser } from './discard.js';
import { RunPlan } from './plan.js';
import { subclusterParts } from './reserved-parts.js';
import type { Run } from './reserved-parts.js';

/** Guest clusters with contiguous host clusters; becomes one piece or more when lowered. */
interface Span {
  readonly offset: number;
  readonly length: number;
  readonly hostOffset: number;
  readonly fresh: boolean;
}

interface Lowered {
  readonly piece: ReservedPiece;
  /** Offset in the node of the data. */
  readonly hostOffset: number;
}

interface Place {
  readonly table: Table | null;
  /** Guest bytes, within one L2 table. */
  readonly at: number;
  readonly end: number;
}

export interface ReserveContext {
  readonly store: MetadataStore;
  readonly eraser: Eraser;
}

/** Null when the range cannot be lowered to host files: it goes through write(). */
export async function reserve(
  context: ReserveContext,
  offset: number,
  length: number,
): Promise<TargetReservation | null> {
  const { image } = context.store;
  image.assertWritable();
  const reservation = new Reservation(context);
  try {
    const fits = await reservation.fill(offset, offset + length);
    if (fits) return reservation;
  } catch (error) {
    reservation.abandon();
    throw error;
  }
  reservation.abandon();
  return null;
}

class Reservation implements TargetReservation, EntryWatcher {
  readonly pieces: ReservedPiece[] = [];
  readonly #context: ReserveContext;
  readonly #lowered: Lowered[] = [];
  readonly #spans: Span[] = [];
  /** Guest clusters that changed under the reservation. */
  readonly #lost = new Set<number>();
  readonly #below: TargetReservation[] = [];
  readonly #lease: number;
  /** Of fresh places in a data file. */
  readonly #locks: RangeLock[] = [];
  #first = 0;
  #end = 0;
  #open = true;

  constructor(context: ReserveContext) {
    this.#context = context;
    this.#lease = context.store.image.leases.enter();
  }

  entriesChanged(first: number, end: number): void {
    const last = Math.min(end, this.#end);
    for (let cluster = Math.max(first, this.#first); cluster < last; cluster += 1) {
      this.#lost.add(cluster);
    }
  }

  async fill(offset: number, end: number): Promise<boolean> {
    const { store } = this.#context;
    const { image } = store;
    this.#first = Math.floor(offset / image.clusterSize);
    this.#end = Math.ceil(end / image.clusterSize);
    image.watchers.add(this);
    const plan = new RunPlan(image, true);
    for (let at = offset; at < end; ) {
      const room = store.makeRoom();
      if (room !== undefined) await room;
      const table = store.lookup(at);
      if (table instanceof Promise) {
        await table;
        continue;
      }
      plan.find(table, at, end - at);
      const span = this.#span(plan, { table, at, end });
      if (span === null) return false;
      if (span instanceof Promise) {
        await span;
        continue;
      }
      this.#spans.push(span);
      at += span.length;
    }
    for (const span of this.#spans) if (!(await this.#lower(span))) return false;
    return true;
  }

  async link(outcomes: readonly PieceOutcome[]): Promise<void> {
    if (!this.#open) throw new BlockError('invalid-state', 'reservation is linked already');
    try {
      for (let index = 0; index < this.#lowered.length; index += 1) {
        const lowered = this.#lowered[index] as Lowered;
        const outcome = outcomes[index] ?? 'dropped';
        if (outcome === 'dropped') continue;
        const { offset, length, fresh } = lowered.piece;
        if (fresh) await this.#linkPiece(lowered, partsOf(outcome, length));
        else if (outcome === 'zero') {
          await this.#context.eraser.writeZeroes(offset, length, RequestFlag.mayUnmap);
        }
      }
      for (const below of this.#below) await below.link(below.pieces.map(() => 'written'));
    } finally {
      this.abandon();
    }
  }

  /** Gives back every fresh cluster that was not linked. */
  abandon(): void {
    if (!this.#open) return;
    this.#open = false;
    const { store } = this.#context;
    const { image } = store;
    image.watchers.delete(this);
    for (const span of this.#spans) {
      if (!span.fresh) continue;
      const clusters = Math.ceil(span.length / image.clusterSize);
      const first = span.offset / image.clusterSize;
      for (let index = 0; index < clusters; index += 1) {
        if (this.#linked.has(first + index)) continue;
        store.undoData(span.hostOffset + index * image.clusterSize, 1);
      }
    }
    for (const lock of this.#locks) image.locks.release(lock);
    for (const below of this.#below) below.abandon();
    image.leases.leave(this.#lease);
  }

  /** Guest clusters whose fresh host cluster the image uses now. */
  readonly #linked = new Set<number>();

  #span(plan: RunPlan, { table, at, end }: Place): Span | Promise<void> | null {
    const { store } = this.#context;
    const { image } = store;
    const { clusterSize, geometry } = image;
    if (isWrittenInPlace(plan, { at, end, clusterSize })) {
      const hit = image.dataOverlap(plan.hostOffset, plan.length);
      if (hit !== null) {
        const { hostOffset, length } = plan;
        throw image.overlapError(hit, 'data cluster', { offset: hostOffset, length });
      }
      return { offset: at, length: plan.length, hostOffset: plan.hostOffset, fresh: false };
    }
    const inTable = geometry.l2Coverage - (at % geometry.l2Coverage);
    const most =
      geometry.subclustersPerCluster === 1
        ? Math.min(plan.length, inTable, end - at)
        : reachOfFresh(plan, { table, at, end: Math.min(end, at + inTable) }, clusterSize);
    const last = at + most === image.size;
    const whole = last ? most : Math.floor(most / clusterSize) * clusterSize;
    if (at % clusterSize !== 0 || whole === 0) return null;
    const first = at / clusterSize;
    const count = Math.ceil(whole / clusterSize);
    if (image.hasDataFile && image.locks.conflict(first, first + count) !== null) return null;
    const run = store.takeData(first, count);
    if (run instanceof Promise) return run;
    // The place is the guest's own there: nobody else writes to it meanwhile.
    if (image.hasDataFile) this.#locks.push(image.locks.acquire(first, first + run.clusters));
    const length = Math.min(whole, run.clusters * clusterSize);
    return { offset: at, length, hostOffset: run.offset, fresh: true };
  }

  async #lower(span: Span): Promise<boolean> {
    const { data, clusterSize, cipher: own } = this.#context.store.image;
    const below = await data.reserve(span.hostOffset, span.length);
    if (below === null) return false;
    this.#below.push(below);
    for (const part of below.pieces) {
      const guestOffset = span.offset + part.offset - span.hostOffset;
      const cipher = own?.rangeAt({ hostOffset: part.offset, guestOffset }) ?? part.cipher;
      const piece: ReservedPiece = {
        offset: guestOffset,
        length: part.length,
        file: part.file,
        hostOffset: part.hostOffset,
        fresh: span.fresh,
        ...(cipher === undefined ? {} : { cipher }),
      };
      // One cipher to a range is all that lanes know.
      if (own !== null && part.cipher !== undefined) return false;
      // A fresh space below would need its own linking in order with ours.
      if (part.fresh || (span.fresh && (part.offset - span.hostOffset) % clusterSize !== 0)) {
        return false;
      }
      this.pieces.push(piece);
      this.#lowered.push({ piece, hostOffset: part.offset });
    }
    return true;
  }

  /**
   * Links what was written and makes the zero ranges read as zeroes. Where the entry cannot say so
   * the fresh space is filled with zeroes first: what is linked never holds old bytes.
   */
  async #linkPiece(
    { piece, hostOffset }: Lowered,
    { zeroRanges, holes = false }: WrittenInPart,
  ): Promise<void> {
    const { image } = this.#context.store;
    const { clusterSize, geometry, size } = image;
    const fillZeroes = (start: number, bytes: number): Promise<void> => {
      const place = { hostOffset: hostOffset + start, guestOffset: piece.offset + start };
      return this.#fillZeroes(place, bytes);
    };
    if (geometry.subclustersPerCluster > 1 && !image.dataFileRaw) {
      const unseen = holes && image.backing === null;
      const written = { ...piece, hostOffset, zeroRanges, holes: unseen };
      const { fills, runs } = subclusterParts(written, geometry);
      for (let index = 0; index < fills.length; index += 2) {
        await fillZeroes(fills[index] ?? 0, fills[index + 1] ?? 0);
      }
      for (const run of runs) await this.#settle(run);
      return;
    }
    const sayable = image.version >= 3 ? !image.dataFileRaw : image.holesStayZero;
    let linkedTo = 0;
    for (let index = 0; index < zeroRanges.length; index += 2) {
      const start = zeroRanges[index] ?? 0;
      const end = start + (zeroRanges[index + 1] ?? 0);
      const first = sayable ? Math.ceil(start / clusterSize) * clusterSize : end;
      const last = piece.offset + end === size ? end : Math.floor(end / clusterSize) * clusterSize;
      if (first >= last) {
        await fillZeroes(start, end - start);
        continue;
      }
      await fillZeroes(start, first - start);
      await fillZeroes(last, end - last);
      const offset = piece.offset + first;
      const middle = { offset, length: last - first, hostOffset: null, holes };
      await this.#settle(cutRun(piece, hostOffset, { from: linkedTo, to: first }));
      await this.#settle(middle);
      linkedTo = last;
    }
    if (linkedTo === piece.length) return;
    // Other programs count on zeroes past the end of the image when they make it larger.
    const tail = (piece.offset + piece.length) % clusterSize;
    if (tail !== 0 && image.storesTail) {
      await fillZeroes(piece.length, clusterSize - tail);
    }
    await this.#settle(cutRun(piece, hostOffset, { from: linkedTo, to: piece.length }));
  }

  async #fillZeroes(place: DataPlace, length: number): Promise<void> {
    const { hostOffset, guestOffset } = place;
    const { image } = this.#context.store;
    const zeroes = new Uint8Array(Math.min(length, QCOW2_LIMITS.zeroWriteBytes));
    for (let done = 0; done < length; done += zeroes.length) {
      const part = zeroes.subarray(0, Math.min(zeroes.length, length - done));
      const at = { hostOffset: hostOffset + done, guestOffset: guestOffset + done };
      await image.writeData(null, at, part);
    }
  }

  /** Changes the entries of the clusters that nobody changed meanwhile, a table in one turn. */
  async #settle(run: Run): Promise<void> {
    if (run.length === 0) return;
    const { store } = this.#context;
    const { clusterSize, locks, geometry, hasDataFile } = store.image;
    const end = Math.ceil((run.offset + run.length) / clusterSize);
    for (let first = run.offset / clusterSize; first < end; ) {
      const stop = Math.min(end, first - (first % geometry.l2Entries) + geometry.l2Entries);
      const wait = store.makeRoom() ?? (hasDataFile ? null : locks.conflict(first, stop));
      const step = wait ?? this.#settleClusters(run, { first, end: stop });
      if (step === null) first = stop;
      else await step;
    }
  }

  /** Null when done; otherwise everything is to be looked at again after the promise. */
  #settleClusters(run: Run, clusters: Clusters): Promise<unknown> | null {
    const { store } = this.#context;
    const { clusterSize, version } = store.image;
    const at = clusters.first * clusterSize;
    const sparesHoles = run.hostOffset === null && (run.holes === true || version < 3);
    if (sparesHoles) {
      const present = store.lookup(at);
      if (present instanceof Promise) return present;
      if (this.#isHole(present, at, (clusters.end - clusters.first) * clusterSize)) return null;
    }
    const table = store.forWriting(at);
    if (table instanceof Promise) return table;
    assert(table !== undefined, 'an L2 table for writing');
    store.image.assertWritable();
    if (sparesHoles || !this.#settleEmpty(table, run, clusters)) {
      this.#settleEach(table, run, clusters);
    }
    return null;
  }

  /** All at once where nothing was there before; false where something was, or came meanwhile. */
  #settleEmpty(table: Table, run: Run, clusters: Clusters): boolean {
    const { store } = this.#context;
    const { first, end } = clusters;
    for (let cluster = first; cluster < end; cluster += 1) {
      if (this.#lost.has(cluster)) return false;
    }
    if (run.masks !== undefined || !store.isEmpty(table, clusters)) return false;
    if (run.hostOffset === null) {
      if (store.image.version < 3) return false;
      store.setEmpty(table, clusters, null);
      return true;
    }
    for (let cluster = first; cluster < end; cluster += 1) this.#linked.add(cluster);
    const skipped = first * store.image.clusterSize - run.offset;
    store.setEmpty(table, clusters, run.hostOffset + skipped);
    return true;
  }

  #settleEach(table: Table, run: Run, { first, end }: Clusters): void {
    const { store, eraser } = this.#context;
    const { clusterSize, version } = store.image;
    for (let cluster = first; cluster < end; cluster += 1) {
      if (this.#lost.has(cluster)) continue;
      const at = cluster * clusterSize;
      if (run.hostOffset !== null) {
        const entry = ownedEntry(run.hostOffset + at - run.offset);
        this.#linkCluster(table, cluster, { ...entry, ...run.masks });
      } else if ((run.holes !== true && version >= 3) || !this.#isHole(table, at, clusterSize)) {
        eraser.zeroCluster(table, cluster);
      }
    }
  }

  #linkCluster(table: Table, cluster: number, entry: L2Entry): void {
    const { store } = this.#context;
    const { image } = store;
    this.#linked.add(cluster);
    const change = { entry, punch: image.policies.passDiscardOther };
    store.replaceEntry(table, cluster, change);
  }

  /** Reads as zeroes already: not allocated and nothing behind it. */
  #isHole(table: Table | null, at: number, length: number): boolean {
    const { image } = this.#context.store;
    const plan = new RunPlan(image);
    plan.find(table, at, length);
    if (plan.length < length) return false;
    if (plan.kind === EntryKind.zero || plan.kind === EntryKind.zeroAllocated) return true;
    const shows = plan.kind === EntryKind.unallocated || plan.kind === EntryKind.hosted;
    return shows && image.backing === null;
  }
}

/** Cuts the run at the last cluster that it fills, or the request ends in. */
function isWrittenInPlace(
  plan: RunPlan,
  { at, end, clusterSize }: { at: number; end: number; clusterSize: number },
): boolean {
  if (plan.kind !== EntryKind.data || !plan.copied) return false;
  const runEnd = at + plan.length;
  if (runEnd < end) plan.length -= Math.min(plan.length, runEnd % clusterSize);
  return plan.length > 0;
}

/**
 * Bytes of whole clusters from `at` on that get others in their stead, with subclusters of more
 * than one kind in them. Data of our own is not replaced, for a guest's write to it in place would
 * be lost unnoticed; nor are places set aside.
 */
function reachOfFresh(plan: RunPlan, place: Place, clusterSize: number): number {
  const most = place.end - place.at;
  let reach = 0;
  while (reach < most) {
    const rest = most - reach;
    plan.find(place.table, place.at + reach, rest);
    const isMixed = plan.length < Math.min(clusterSize, rest);
    const hasPlace = plan.kind === EntryKind.data || plan.kind === EntryKind.hosted;
    if (!isMixed && hasPlace && plan.copied) break;
    if (isMixed) {
      const length = Math.min(clusterSize, rest);
      if (hasOwnData(plan, place.table, { at: place.at + reach, length })) break;
      reach += length;
    } else reach += plan.length === rest ? rest : plan.length - (plan.length % clusterSize);
  }
  return reach;
}

function hasOwnData(
  plan: RunPlan,
  table: Table | null,
  { at, length }: { at: number; length: number },
): boolean {
  for (let done = 0; done < length; done += plan.length) {
    plan.find(table, at + done, length - done);
    if (plan.kind === EntryKind.data && plan.copied) return true;
  }
  return false;
}

function cutRun(
  piece: ReservedPiece,
  hostOffset: number,
  part: { readonly from: number; readonly to: number },
): Run {
  const { from, to } = part;
  return { offset: piece.offset + from, length: to - from, hostOffset: hostOffset + from };
}

function partsOf(outcome: Exclude<PieceOutcome, 'dropped'>, length: number): WrittenInPart {
  if (outcome === 'written') return { zeroRanges: [] };
  return outcome === 'zero' ? { zeroRanges: [0, length] } : outcome;
}
