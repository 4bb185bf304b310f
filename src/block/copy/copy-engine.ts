// SPDX-License-Identifier: Apache-2.0
// The one way in which bulk data goes from node to node: plan, lanes, link.
//
// A CopySession copies ranges of a source's view into a target, several short ones as one bounded
// batch, since what costs is its turns and calls: every layer of the source is leased and entered,
// host ranges are planned, target space is reserved, lanes fill all of it in one task, and linking
// (compare-and-set: a guest's write wins) makes it visible. Where a node says "no", the same bytes
// go through read() and write(). Zeroes are never read or written as data. Failures are values that
// name their side; the caller's policy decides.

import { assert, BlockError, must, toBlockError } from '../../base/index.js';
import type { ClusterCodec } from '../../codec/index.js';
import type { HostFile } from '../../host/index.js';
import type { PieceOutcome, ReservedPiece, TargetReservation } from '../extent.js';
import type { Node } from '../node.js';
import { RequestFlag, writeRequest, zeroRequest } from '../request.js';
import { leastHole, nodesOfView, planView } from './chain.js';
import { copyThroughGraph, turnFlag, zeroFlags } from './graph-copy.js';
import type { LaneExecutor } from './lane-executor.js';
import {
  allZero,
  cutParts,
  dataSpans,
  FileTable,
  gapsBetween,
  laneParts,
  pieceStep,
} from './lane-plan.js';
import type { PlannedRange, Span } from './lane-plan.js';
import type { LaneFailure, LaneResult, LaneStep } from './lane-task.js';

/** Looked up again after every await, since graph changes replace nodes (a Child or a Backend). */
export interface NodeRef {
  readonly node: Node;
}

export interface CopyFailure {
  readonly side: 'source' | 'target';
  readonly error: BlockError;
}

export interface CopySpec {
  /** What to copy is the whole view of this node, its backing chain included. */
  readonly source: NodeRef;
  readonly target: NodeRef;
  /** Bytes; ranges are multiples of it but for the end: the target's cluster size. */
  readonly unit: number;
  /**
   * Zeroes in data are found in units of this many bytes (power of two; a target cluster at
   * least); 0 = not looked for.
   */
  readonly zeroGranularity: number;
  /** The target reads as zeroes wherever nothing was copied yet: zeroes need no writing. */
  readonly targetIsZero?: boolean;
  /** False: zeroes are written so that their space stays theirs. */
  readonly unmap?: boolean;
  /** The target is flushed when all is copied: its writing back may begin meanwhile. */
  readonly flushedSoon?: boolean;
  /** The host may copy by itself; zeroes in data are not looked for. */
  readonly hostCopies?: boolean;
  /** Write compressed clusters, in the order of the calls. */
  readonly compress?: boolean;
  /**
   * The target is an overlay whose unallocated clusters are filled with what they read as; a
   * guest that writes meanwhile wins. Called instead when lanes cannot do it.
   */
  readonly fill?: (offset: number, length: number) => Promise<CopyFailure | null>;
}

export class CopyEngine {
  readonly lanes: LaneExecutor;
  readonly #lanesFor: (node: Node) => LaneExecutor | null;

  /** `lanesFor`: who copies from a node, if not `lanes`; asked when a session begins. */
  constructor(options: {
    readonly lanes: LaneExecutor;
    readonly lanesFor?: (node: Node) => LaneExecutor | null;
  }) {
    this.lanes = options.lanes;
    this.#lanesFor = options.lanesFor ?? (() => null);
  }

  open(spec: CopySpec): CopySession {
    return new CopySession(this.#lanesFor(spec.source.node) ?? this.lanes, spec);
  }

  close(): Promise<void> {
    return this.lanes.close();
  }
}

export class CopySession {
  readonly spec: CopySpec;
  readonly #lanes: LaneExecutor;
  readonly #cancel = new Int32Array(new SharedArrayBuffer(4));
  readonly #freeSlabs: SharedArrayBuffer[] = [];
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
    return this.spec.targetIsZero === true ? null : this.#writeZeroes({ offset, length });
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
      else ranges.push({ offset, length, parts });
    }
    const planned = await (spec.compress === true
      ? this.#copyCompressed(ranges, earlier)
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
    return this.#copySpans(wanted);
  }

  /** Reserve, fill, link. */
  async #copySpans(
    wanted: readonly { readonly range: PlannedRange; readonly span: Span }[],
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
    const fellBack = await eachSpan(rest, (span) => this.#fallBack(span));
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
        if (allZero(cutParts(range, piece.offset, piece.length))) return ZERO;
        return steps.push(pieceStep(range, piece, context)) - 1;
      });
      stepsOf.push(stepOf);
    }
    const results = await this.#runSteps(steps, context.table.files);
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

  async #runSteps(steps: readonly LaneStep[], files: readonly HostFile[]): Promise<LaneResult[]> {
    if (steps.length === 0) return [];
    // A file that is never flushed may as well never be written back.
    const flushedSoon = this.spec.flushedSoon === true && files.every(({ flushes }) => flushes);
    const task = { steps, slab: null, cancel: this.#cancel, flushedSoon };
    return this.#lanes.run({ task, files }, this);
  }

  /** The bytes go through the nodes: some driver must see them. */
  async #fallBack(span: Span): Promise<CopyFailure | null> {
    const { spec } = this;
    if (spec.fill !== undefined) return spec.fill(span.offset, span.length);
    return copyThroughGraph(spec, span);
  }

  async #copyCompressed(
    ranges: readonly PlannedRange[],
    earlier: Promise<void>,
  ): Promise<CopyFailure | null> {
    const packs = this.spec.target.node.driverNode.writeDeflated !== undefined;
    if (packs) return eachSpan(ranges, (range) => this.#packRange(range, earlier));
    await earlier;
    return eachSpan(ranges, (range) => copyThroughGraph(this.spec, range));
  }

  async #packRange(range: PlannedRange, earlier: Promise<void>): Promise<CopyFailure | null> {
    const { unit } = this.spec;
    const { clusterCodec: codec = 'deflate' } = this.spec.target.node.driverNode;
    const table = new FileTable();
    const steps: LaneStep[] = [];
    for (let at = range.offset; at < range.offset + range.length; at += unit) {
      steps.push(compressStep(range, at, { unit, table, index: steps.length, codec }));
    }
    const slab = this.#takeSlab(steps.length * unit);
    const results = await this.#lanes.run(
      { task: { steps, slab, cancel: this.#cancel }, files: table.files },
      this,
    );
    await earlier;
    try {
      return await this.#pack({ span: range, slab, results });
    } catch (error) {
      return { side: 'target', error: toBlockError(error) };
    } finally {
      this.#freeSlabs.push(slab);
    }
  }

  /** Used again, for shared memory is given back late: not the collector's heap, but the host's. */
  #takeSlab(bytes: number): SharedArrayBuffer {
    const slab = this.#freeSlabs.pop();
    return slab !== undefined && slab.byteLength >= bytes ? slab : new SharedArrayBuffer(bytes);
  }

  /** Writes the clusters of a batch in guest order, compressed where that made them smaller. */
  async #pack(batch: {
    readonly span: Span;
    readonly slab: SharedArrayBuffer;
    readonly results: readonly LaneResult[];
  }): Promise<CopyFailure | null> {
    const { unit } = this.spec;
    for (const [index, result] of batch.results.entries()) {
      const offset = batch.span.offset + index * unit;
      const length = Math.min(unit, batch.span.offset + batch.span.length - offset);
      if (result.outcome === 'zero') {
        const failure = await this.zero(offset, length);
        if (failure !== null) return failure;
        continue;
      }
      if (result.outcome !== 'written') return failureOf(result.failure, offset);
      const bytes = new Uint8Array(batch.slab, index * unit, result.bytes);
      if (result.deflated) await this.#packCluster(offset, length, bytes);
      else await this.spec.target.node.write(writeRequest(offset, bytes.subarray(0, length)));
    }
    return null;
  }

  async #packCluster(offset: number, length: number, payload: Uint8Array): Promise<void> {
    const target = this.spec.target.node;
    const leave = target.enterBatch(offset, length, true);
    try {
      await target.driverNode.writeDeflated?.(offset, payload);
    } finally {
      leave();
    }
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

/** All are tried, one after another; gives the first failure. */
async function eachSpan<T extends Span>(
  spans: readonly T[],
  work: (span: T) => Promise<CopyFailure | null>,
): Promise<CopyFailure | null> {
  let failure: CopyFailure | null = null;
  for (const span of spans) {
    const result = await work(span);
    failure ??= result;
  }
  return failure;
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

function compressStep(
  range: PlannedRange,
  offset: number,
  place: {
    readonly unit: number;
    readonly table: FileTable;
    readonly index: number;
    readonly codec: ClusterCodec;
  },
): LaneStep {
  const { unit } = place;
  const length = Math.min(unit, range.offset + range.length - offset);
  const parts = laneParts(cutParts(range, offset, length), place.table);
  assert(length > 0, `a cluster at ${offset} lies in the range`);
  return {
    // A compressed cluster is always a whole one; past the end of the image it is zero.
    parts: length < unit ? [...parts, { kind: 'zero', length: unit - length }] : parts,
    length: unit,
    target: { kind: 'slab', offset: place.index * unit },
    zeroGranularity: unit,
    skipZeroes: false,
    deflate: true,
    codec: place.codec,
  };
}

/** `offset`: the guest byte that the failed piece begins at. */
function failureOf(failure: LaneFailure | null, offset: number): CopyFailure {
  if (failure === null) {
    return { side: 'source', error: new BlockError('cancelled', 'Operation canceled') };
  }
  const { side, kind, message, errno } = failure;
  return { side, error: new BlockError(kind, message, { errno, offset }) };
}
