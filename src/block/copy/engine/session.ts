// SPDX-License-Identifier: Apache-2.0
// The one way in which bulk data goes from node to node: plan, lanes, link.
//
// A CopySession copies ranges of a source's view into a target, several short ones as one bounded
// batch, since what costs is its turns and calls: every layer of the source is leased and entered,
// host ranges are planned, target space is reserved, lanes fill all of it in one task, and linking
// (compare-and-set: a guest's write wins) makes it visible. Where a node says "no", the same bytes
// go through read() and write(). Zeroes are never read or written as data. Failures are values that
// name their side; the caller's policy decides.

import { COPY_LIMITS, must, toBlockError } from '../../../base/index.js';
import type { PieceOutcome, ReservedPiece, TargetReservation } from '../../extent.js';
import { RequestFlag, zeroRequest } from '../../request.js';
import { leastHole, nodesOfView, planView } from '../chain.js';
import { copyThroughGraph, turnFlag, zeroFlags } from '../graph-copy.js';
import type { LaneExecutor } from '../lane-executor.js';
import {
  allZero,
  cutParts,
  dataSpans,
  FileTable,
  gapsBetween,
  pieceStep,
  plannedRange,
} from '../lane-plan.js';
import type { PlannedRange, Span } from '../lane-plan.js';
import type { LaneResult, LaneStep } from '../lane-task.js';
import { Packing } from './packing.js';
import { eachSpan, failureOf } from './spec.js';
import type { CopyFailure, CopySpec } from './spec.js';

export class CopySession {
  readonly spec: CopySpec;
  readonly #lanes: LaneExecutor;
  readonly #cancel = new Int32Array(new SharedArrayBuffer(4));
  readonly #packing: Packing;
  /** Ends when the compressed clusters of every earlier range are written. */
  #packed: Promise<void> = Promise.resolve();

  constructor(lanes: LaneExecutor, spec: CopySpec) {
    this.#lanes = lanes;
    const least = leastHole(spec.target.node);
    const zeroGranularity = spec.hostCopies === true ? 0 : spec.zeroGranularity;
    this.spec = {
      ...spec,
      zeroGranularity: zeroGranularity === 0 ? 0 : Math.max(zeroGranularity, least),
    };
    this.#packing = new Packing(this.spec, {
      lanes,
      cancel: this.#cancel,
      owner: this,
      zero: (offset, length) => this.zero(offset, length),
    });
  }

  /** Batches in flight stop before their next step, with kind `cancelled`; files stay whole. */
  cancel(): void {
    Atomics.store(this.#cancel, 0, 1);
  }

  /** Copies one batch; `offset` is a multiple of the unit. Null when all of it is copied. */
  copy(offset: number, length: number): Promise<CopyFailure | null> {
    return this.copyAll([{ offset, length }]);
  }

  /**
   * Copies ranges that do not overlap, as one batch: one task for the lanes, however short they
   * are. All are tried; null when all of them are copied, else the first failure.
   */
  async copyAll(spans: readonly Span[]): Promise<CopyFailure | null> {
    const earlier = this.#packed;
    let endTurn = (): void => undefined;
    if (this.spec.compress === true) {
      this.#packed = new Promise((resolve) => {
        endTurn = resolve;
      });
    }
    const exits: (() => void)[] = [];
    const leaveSource = (): void => {
      for (const exit of exits.splice(0)) exit();
    };
    try {
      this.#enterSource(spans, exits);
      return await this.#copyEntered(spans, { earlier, leaveSource });
    } catch (error) {
      return { side: 'source', error: toBlockError(error) };
    } finally {
      leaveSource();
      endTurn();
    }
  }

  /** Makes the range of the target read as zeroes, however long it is. */
  async zero(offset: number, length: number): Promise<CopyFailure | null> {
    if (this.spec.targetIsZero === true) return null;
    const { target, fill } = this.spec;
    const inLanes = target.node.driverNode.storesZeroes === true && fill === undefined;
    if (!inLanes || turnFlag(this.spec) !== RequestFlag.none) {
      return this.#writeZeroes({ offset, length });
    }
    return this.#storeZeroes({ offset, length });
  }

  /** In batches, as many at once as there are lanes. */
  async #storeZeroes({ offset, length }: Span): Promise<CopyFailure | null> {
    const end = offset + length;
    let failure: CopyFailure | null = null;
    let next = offset;
    const oneAfterAnother = async (): Promise<void> => {
      while (next < end && failure === null) {
        const span = { offset: next, length: Math.min(COPY_LIMITS.batchBytes, end - next) };
        next += span.length;
        const range = plannedRange(span, [{ kind: 'zero', length: span.length }]);
        const result = await this.#copySpans([{ range, span }], (each) => this.#writeZeroes(each));
        failure ??= result;
      }
    };
    await Promise.all(Array.from({ length: this.#lanes.width }, oneAfterAnother));
    return failure;
  }

  async #writeZeroes({ offset, length }: Span): Promise<CopyFailure | null> {
    try {
      const request = zeroRequest(offset, length, zeroFlags(this.spec));
      const result = this.spec.target.node.writeZeroes(request);
      if (result instanceof Promise) await result;
      return null;
    } catch (error) {
      return { side: 'target', error: toBlockError(error) };
    }
  }

  async #copyEntered(
    spans: readonly Span[],
    { earlier, leaveSource }: { readonly earlier: Promise<void>; readonly leaveSource: () => void },
  ): Promise<CopyFailure | null> {
    const { spec } = this;
    if (spec.fill === undefined && turnFlag(spec) !== RequestFlag.none) {
      await earlier;
      leaveSource();
      return eachSpan(spans, (span) => copyThroughGraph(spec, span));
    }
    const ranges: PlannedRange[] = [];
    const unplanned: Span[] = [];
    for (const { offset, length } of spans) {
      const parts = await planView(spec.source.node, offset, length);
      if (parts === null) unplanned.push({ offset, length });
      else ranges.push(plannedRange({ offset, length }, parts));
    }
    const planned = await (spec.compress === true
      ? this.#packing.copy(ranges, earlier)
      : this.#copyPlanned(ranges));
    if (unplanned.length === 0) return planned;
    // A read through the nodes may need its range for itself (copy-on-read fills what it reads).
    leaveSource();
    await earlier;
    return planned ?? eachSpan(unplanned, (span) => this.#fallBack(span));
  }

  async #copyPlanned(ranges: readonly PlannedRange[]): Promise<CopyFailure | null> {
    const { spec } = this;
    const wanted: { range: PlannedRange; span: Span }[] = [];
    const gaps: Span[] = [];
    for (const range of ranges) {
      const data = dataSpans(range, spec.unit);
      // Filling goes through a reservation, where the guest's writes are seen.
      const zeroes = gapsBetween(range, data);
      if (spec.fill === undefined) gaps.push(...zeroes);
      else for (const span of zeroes) wanted.push({ range, span });
      for (const span of data) wanted.push({ range, span });
    }
    const zeroed = await eachSpan(gaps, ({ offset, length }) => this.zero(offset, length));
    if (zeroed !== null || wanted.length === 0) return zeroed;
    return this.#copySpans(wanted, (span) => this.#fallBack(span));
  }

  /** Reserve, fill, link; `fallBack` where there is nothing to be reserved. */
  async #copySpans(
    wanted: readonly { readonly range: PlannedRange; readonly span: Span }[],
    fallBack: (span: Span) => Promise<CopyFailure | null>,
  ): Promise<CopyFailure | null> {
    const target = this.spec.target.node;
    // Filled with what is read anyway: nothing that observers would have to know.
    const changes = this.spec.fill === undefined;
    const leaves: (() => void)[] = [];
    const fillings: Filling[] = [];
    const others: Span[] = [];
    let filled: Filled;
    try {
      for (const { range, span } of wanted) {
        leaves.push(target.enterBatch(span.offset, span.length, changes));
        const reserved = target.reserve(span.offset, span.length, !changes);
        const reservation = reserved instanceof Promise ? await reserved : reserved;
        if (reservation === null) others.push(span);
        else fillings.push({ range, span, reservation });
      }
      filled = await this.#fill(fillings);
    } catch (error) {
      for (const { reservation } of fillings) reservation.abandon();
      return { side: 'target', error: toBlockError(error) };
    } finally {
      for (const leave of leaves) leave();
    }
    // A piece may be several clusters of which the guest wrote only some: the rest is due still.
    const rest = [...others, ...filled.lost];
    const fellBack = await eachSpan(rest, fallBack);
    return filled.failure ?? fellBack ?? this.#zeroAll(filled.zeroes);
  }

  #zeroAll(spans: readonly Span[]): Promise<CopyFailure | null> {
    return eachSpan(spans, (span) => this.#writeZeroes(span));
  }

  async #fill(fillings: readonly Filling[]): Promise<Filled> {
    const { zeroGranularity, hostCopies = false } = this.spec;
    const context = { table: new FileTable(), zeroGranularity, hostCopies };
    const steps: LaneStep[] = [];
    const lost: Span[] = [];
    const stepsOf: number[][] = [];
    for (const { range, span, reservation } of fillings) {
      const ofGuest = await this.#piecesOfGuest(reservation);
      if (ofGuest.size > 0) lost.push(span);
      const stepOf = reservation.pieces.map((piece) => {
        if (ofGuest.has(piece)) return LOST;
        const parts = cutParts(range, piece.offset, piece.length);
        const writesNothing = piece.storesZeroes !== true && allZero(parts);
        return writesNothing ? ZERO : steps.push(pieceStep(parts, piece, context)) - 1;
      });
      stepsOf.push(stepOf);
    }
    const results = await this.#runSteps(steps, context.table);
    const filled: Filled = { failure: null, zeroes: [], lost };
    for (const [index, { reservation }] of fillings.entries()) {
      const stepOf = must(stepsOf[index], 'each reservation has its steps');
      const outcomes = reservation.pieces.map((piece, at): PieceOutcome => {
        const step = must(stepOf[at], 'each piece has its step');
        if (step === LOST) return 'dropped';
        const result = step === ZERO ? ZERO_RESULT : must(results[step], 'each step has a result');
        return this.#outcomeOf(piece, result, filled);
      });
      const linked = reservation.link(outcomes);
      if (linked instanceof Promise) await linked;
    }
    return filled;
  }

  #outcomeOf(piece: ReservedPiece, result: LaneResult, filled: Filled): PieceOutcome {
    const holes = this.spec.targetIsZero === true;
    // A hole reads as zeroes only until the target gets a backing file.
    const saysZeroes = !holes && this.spec.fill === undefined;
    if (result.outcome === 'zero') {
      if (piece.fresh) return holes ? { zeroRanges: [0, piece.length], holes } : 'zero';
      if (saysZeroes) filled.zeroes.push(piece);
      return 'dropped';
    }
    if (result.outcome !== 'written') {
      filled.failure ??= failureOf(result.failure, piece.offset);
      return 'dropped';
    }
    if (result.zeroRanges.length === 0) return 'written';
    // What a lane left out of new space may hold old bytes: it must not be linked as it is.
    if (piece.fresh) return { zeroRanges: result.zeroRanges, holes };
    if (saysZeroes) pushRanges(filled.zeroes, piece.offset, result.zeroRanges);
    return 'written';
  }

  /**
   * When filling: pieces whose clusters a guest has written since the range was chosen. Looked
   * for after reserving, so a later write is seen by the compare-and-set of link().
   */
  async #piecesOfGuest(reservation: TargetReservation): Promise<Set<ReservedPiece>> {
    const lost = new Set<ReservedPiece>();
    if (this.spec.fill === undefined) return lost;
    for (const piece of reservation.pieces) {
      const end = piece.offset + piece.length;
      for (let at = piece.offset; at < end; ) {
        const asked = this.spec.target.node.blockStatus(at, end - at, false);
        const status = asked instanceof Promise ? await asked : asked;
        if (status.allocated) lost.add(piece);
        at += status.length;
      }
    }
    return lost;
  }

  async #runSteps(
    steps: readonly LaneStep[],
    { files, ciphers }: FileTable,
  ): Promise<LaneResult[]> {
    if (steps.length === 0) return [];
    // A file that is never flushed may as well never be written back.
    const flushedSoon = this.spec.flushedSoon === true && files.every(({ flushes }) => flushes);
    const task = { steps, slab: null, ciphers, cancel: this.#cancel, flushedSoon };
    return this.#lanes.run({ task, files }, this);
  }

  /** The bytes go through the nodes: some driver must see them. */
  async #fallBack(span: Span): Promise<CopyFailure | null> {
    const { spec } = this;
    if (spec.fill !== undefined) return spec.fill(span.offset, span.length);
    return copyThroughGraph(spec, span);
  }

  /** Counts the batch on every node of the source's view, and keeps freed clusters from reuse. */
  #enterSource(spans: readonly Span[], exits: (() => void)[]): void {
    for (const node of nodesOfView(this.spec.source.node)) {
      for (const { offset, length } of spans) exits.push(node.enterBatch(offset, length, false));
      const lease = node.lease();
      exits.push(() => lease.release());
    }
  }
}

/** Reserved space and what its bytes come from. */
interface Filling {
  readonly range: PlannedRange;
  readonly span: Span;
  readonly reservation: TargetReservation;
}

interface Filled {
  failure: CopyFailure | null;
  /** Linked or in place, left out by the lane because they are zero: still to be said so. */
  readonly zeroes: Span[];
  /** Where a guest's write came first. */
  readonly lost: readonly Span[];
}

/** In place of a step's number: nothing to write, or not ours any more. */
const ZERO = -1;
const LOST = -2;

const ZERO_RESULT: LaneResult = {
  outcome: 'zero',
  bytes: 0,
  zeroRanges: [],
  deflated: false,
  failure: null,
};

/** `pairs`: offset from `start` and length of each range. */
function pushRanges(spans: Span[], start: number, pairs: readonly number[]): void {
  for (let each = 0; each < pairs.length; each += 2) {
    spans.push({ offset: start + (pairs[each] ?? 0), length: pairs[each + 1] ?? 0 });
  }
}
