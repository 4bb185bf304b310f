// SPDX-License-Identifier: Apache-2.0
// The three ways in which convert copies: one image through the copy engine's lanes; an overlay,
// of which only the top layer is copied; and, for several sources or a fully written target, a
// plain walk in steps that reads and writes through the graph. Each has several steps in flight.

import { BlockError, COPY_LIMITS, InFlight, toBlockError } from '../../../base/index.js';
import type { Clock } from '../../../base/index.js';
import { RequestFlag } from '../../../block/index.js';
import type { Backend, Node } from '../../../block/index.js';
import {
  CopyEngine,
  copyImage,
  createLanes,
  LayerRuns,
  leastHole,
  RateLimiter,
  skipFilters,
  viewStatus,
} from '../../../block/copy/index.js';
import type { CopyFailure, CopySession, CopySpec, Span } from '../../../block/copy/index.js';
import { isZero } from '../../../codec/index.js';
import { SECTOR_BYTES } from '../sectors.js';
import type { Session } from '../session.js';

export interface CopyRequest {
  /** One after another, each beginning where the one before ends. */
  readonly sources: readonly Backend[];
  readonly target: Backend;
  /** Bytes in all. */
  readonly length: number;
  readonly compress: boolean;
  /** Bytes of zeroes that are worth a hole; 0 = zeroes are written as data. */
  readonly sparse: number;
  readonly targetIsZero: boolean;
  /** The target's backing file stands for the source's: only the top layer is copied. */
  readonly overlay: boolean;
  /** The target was made for this: nothing was ever written to it. */
  readonly fresh: boolean;
  /** Bytes per second; 0 = no limit. */
  readonly speed: number;
  readonly inFlight: number | null;
  /** Steps that go through the graph are written one after another. */
  readonly ordered: boolean;
  /** What cannot be read becomes zeroes, and this is told of each sector; null: it is a failure. */
  readonly salvage: ((text: string) => void) | null;
  onProgress(bytes: number): void;
  cancelled(): boolean;
}

const STEP_BYTES = 2 * 1024 * 1024;
/** Steps or batches at once unless the user says how many. */
const DEFAULT_IN_FLIGHT = 4;
/** Unit of copying into a target without clusters. */
const PLAIN_UNIT = 4096;

export async function copyAll(
  session: Session,
  request: CopyRequest,
): Promise<CopyFailure | null> {
  const [source] = request.sources;
  if (source === undefined || request.length === 0) return null;
  if (request.sources.length > 1 || request.sparse === 0 || request.salvage !== null) {
    const own = request.overlay ? ownUnits(request, source.node) : null;
    return walk(request, own, session.graph.clock);
  }
  const engine = new CopyEngine({ lanes: createLanes(session.host) });
  try {
    const spec = specOf(request, source);
    if (request.overlay) return await copyTopLayer(engine.open(spec), request, source.node);
    const { length, speed, inFlight } = request;
    return await copyImage(engine, session.graph.clock, {
      ...spec,
      length,
      speed,
      ...(inFlight !== null && { inFlight }),
      onProgress: (bytes) => request.onProgress(bytes),
      cancelled: () => request.cancelled(),
    });
  } finally {
    await engine.close();
  }
}

function specOf(request: CopyRequest, source: Backend): CopySpec {
  const { target, targetIsZero, compress, sparse } = request;
  return {
    source,
    target,
    unit: unitOf(target.node),
    zeroGranularity: 2 ** Math.floor(Math.log2(sparse)),
    targetIsZero,
    ...(compress && { compress }),
  };
}

function unitOf(node: Node): number {
  return node.info.clusterSize ?? Math.max(PLAIN_UNIT, node.limits.requestAlignment);
}

/** Copies what the source's own layer holds; the rest is left to the target's backing file. */
async function copyTopLayer(
  session: CopySession,
  request: CopyRequest,
  source: Node,
): Promise<CopyFailure | null> {
  const top = skipFilters(source);
  const { unit } = session.spec;
  const zeroedTo = zeroedEnd(request);
  const lowerEnd = top.backing?.length ?? 0;
  const running = new Running(request.inFlight ?? DEFAULT_IN_FLIGHT, request);
  const batch = new Batch(session, running);
  const runs = new LayerRuns(top);
  let copiedTo = 0;
  for (let offset = 0; offset < request.length && (await running.mayGoOn()); ) {
    const found = runs.find(offset);
    if (found instanceof Promise) await found;
    const length = Math.min(
      request.length - offset,
      STEP_BYTES - (offset % STEP_BYTES),
      // From there on the source reads as zeroes, whatever the target's backing file holds.
      offset < lowerEnd ? lowerEnd - offset : Infinity,
      runs.lengthFrom(offset),
    );
    const end = offset + length;
    const isZero = readsAsZero(runs, offset);
    if (runs.isAllocated && !isZero) {
      const start = Math.max(copiedTo, offset - (offset % unit));
      copiedTo = Math.min(request.length, Math.ceil(end / unit) * unit);
      if (copiedTo > start) batch.add({ offset: start, length: copiedTo - start }, length);
    } else if (isZero && offset < zeroedTo) {
      // Part of a cluster only after what is being copied into it, and before what will be.
      const isWhole = offset % unit === 0 && length % unit === 0;
      if (!isWhole) await batch.end();
      running.add(session.zero(offset, length), length);
      if (!isWhole) await running.end();
    }
    offset = end;
  }
  return batch.end();
}

/** Ranges that are copied as one batch, since what costs is its turns and calls. */
class Batch {
  readonly #session: CopySession;
  readonly #running: Running;
  #spans: Span[] = [];
  #bytes = 0;
  #progress = 0;

  constructor(session: CopySession, running: Running) {
    this.#session = session;
    this.#running = running;
  }

  /** `progress`: bytes that are settled with it. */
  add(span: Span, progress: number): void {
    this.#spans.push(span);
    this.#bytes += span.length;
    this.#progress += progress;
    const { batchRuns } = COPY_LIMITS;
    if (this.#spans.length >= batchRuns || this.#bytes >= STEP_BYTES) this.#begin();
  }

  #begin(): void {
    if (this.#spans.length === 0) return;
    this.#running.add(this.#session.copyAll(this.#spans), this.#progress);
    this.#spans = [];
    this.#bytes = 0;
    this.#progress = 0;
  }

  /** All that was begun is over. */
  end(): Promise<CopyFailure | null> {
    this.#begin();
    return this.#running.end();
  }
}

/** What is in flight, and the first of its failures. */
class Running {
  readonly #most: number;
  readonly #request: CopyRequest;
  readonly #all = new InFlight();
  #failure: CopyFailure | null = null;
  #done = 0;

  constructor(most: number, request: CopyRequest) {
    this.#most = most;
    this.#request = request;
  }

  add(work: Promise<CopyFailure | null>, bytes: number): void {
    const over = (failure: CopyFailure | null): void => {
      this.#failure ??= failure;
      this.#done += bytes;
      if (failure === null) this.#request.onProgress(this.#done);
    };
    this.#all.add(work.then(over));
  }

  /** Waits for room; false when nothing more is to be begun. */
  async mayGoOn(): Promise<boolean> {
    while (this.#all.size >= this.#most) await this.#all.oneEnds();
    return this.#failure === null && !this.#request.cancelled();
  }

  async end(): Promise<CopyFailure | null> {
    await this.#all.allEnd();
    return this.#failure;
  }
}

function readsAsZero({ node, isAllocated, isData }: LayerRuns, offset: number): boolean {
  if (isAllocated) return !isData;
  return node.backing === null || offset >= node.backing.length;
}

/** Within a step, in order. */
interface Range {
  readonly start: number;
  readonly end: number;
}

/** Which whole units of the target hold something of an overlay's own layer. */
type OwnUnits = (offset: number, length: number) => Promise<readonly Range[]>;

function ownUnits(request: CopyRequest, source: Node): OwnUnits {
  const top = skipFilters(source);
  const unit = unitOf(request.target.node);
  const zeroedTo = zeroedEnd(request);
  const lowerEnd = top.backing?.length ?? 0;
  return async (offset, length) => {
    const ranges: Range[] = [];
    let start = 0;
    let end = 0;
    for (let at = 0; at < length; ) {
      const place = offset + at;
      const below = place < lowerEnd ? lowerEnd - place : Infinity;
      const status = await top.blockStatus(place, Math.min(length - at, below), true);
      const isBelow = !status.allocated && (place < lowerEnd || place >= zeroedTo);
      if (!isBelow) {
        const from = at - (at % unit);
        if (from > end) {
          if (end > start) ranges.push({ start, end });
          start = from;
        }
        end = Math.min(length, Math.ceil((at + status.length) / unit) * unit);
      }
      at += status.length;
    }
    if (end > start) ranges.push({ start, end });
    return ranges;
  };
}

/** Past the end of its backing file a new overlay reads as zeroes, an older one as it is. */
function zeroedEnd({ fresh, target, length }: CopyRequest): number {
  return fresh ? (target.node.backing?.length ?? 0) : length;
}

/**
 * Step by step: every source byte is read, and written unless it may stay a hole. Later steps are
 * read while earlier ones are written; the target is written in order unless told otherwise.
 */
async function walk(
  request: CopyRequest,
  own: OwnUnits | null,
  clock: Clock,
): Promise<CopyFailure | null> {
  const stepBytes = Math.max(STEP_BYTES, unitOf(request.target.node));
  const most = request.inFlight ?? DEFAULT_IN_FLIGHT;
  const running = new Running(most, request);
  const limiter = new RateLimiter(clock);
  limiter.setSpeed(request.speed);
  const free: Uint8Array[] = [];
  let turn: Promise<boolean> = Promise.resolve(true);
  for (let offset = 0; offset < request.length && (await running.mayGoOn()); ) {
    const delay = limiter.delayMs();
    if (delay > 0) await new Promise<void>((resolve) => void clock.after(delay, resolve));
    const buffer = free.pop() ?? new Uint8Array(stepBytes);
    const step = buffer.subarray(0, Math.min(stepBytes, request.length - offset));
    const work = walkStep({ request, own, offset, step }, turn).finally(() => free.push(buffer));
    if (request.ordered) turn = work.then((failure) => failure === null);
    running.add(work, step.length);
    limiter.charge(step.length);
    offset += step.length;
  }
  return running.end();
}

/** `turn` ends when the steps before are written: false when one of them failed. */
async function walkStep(
  work: {
    readonly request: CopyRequest;
    readonly own: OwnUnits | null;
    readonly offset: number;
    readonly step: Uint8Array;
  },
  turn: Promise<boolean>,
): Promise<CopyFailure | null> {
  const { request, own, offset, step } = work;
  let ranges: readonly Range[] = [{ start: 0, end: step.length }];
  let failure: CopyFailure | null = null;
  try {
    if (own !== null) ranges = await own(offset, step.length);
    if (ranges.length > 0) await readSources(request, offset, step);
  } catch (error) {
    failure = { side: 'source', error: at(error, offset) };
  }
  // The step before has named its own failure already; it is the first.
  if (!(await turn)) return CANCELLED;
  if (failure !== null) return failure;
  try {
    for (const { start, end } of ranges) {
      await writeStep(request, offset + start, step.subarray(start, end));
    }
    return null;
  } catch (error) {
    return { side: 'target', error: at(error, offset) };
  }
}

const CANCELLED: CopyFailure = {
  side: 'source',
  error: new BlockError('cancelled', 'Operation canceled'),
};

function at(error: unknown, offset: number): BlockError {
  const { kind, message, context } = toBlockError(error);
  return new BlockError(kind, message, { offset, ...context });
}

/** The part of all sources, laid end to end, that begins at `offset`. */
async function readSources(
  request: CopyRequest,
  offset: number,
  buffer: Uint8Array,
): Promise<void> {
  let start = 0;
  for (const source of request.sources) {
    const { length } = source.node;
    const from = Math.max(0, offset - start);
    const place = Math.max(0, start - offset);
    const bytes = Math.min(length - from, buffer.length - place);
    if (bytes > 0) {
      const part = buffer.subarray(place, place + bytes);
      if (request.salvage === null) await readSource(source, from, part);
      else await salvage({ source, buffer: part, tell: request.salvage }, from, start);
    }
    start += length;
  }
}

async function readSource(source: Backend, offset: number, buffer: Uint8Array): Promise<void> {
  for (let done = 0; done < buffer.length; ) {
    const status = await viewStatus(source.node, offset + done, buffer.length - done);
    const part = buffer.subarray(done, done + status.length);
    if (status.zero) part.fill(0);
    else await source.read(offset + done, part);
    done += part.length;
  }
}

interface Salvage {
  readonly source: Backend;
  readonly buffer: Uint8Array;
  readonly tell: (text: string) => void;
}

/** As readSource(); where that fails, sector by sector. `start`: of this source in the target. */
async function salvage(work: Salvage, offset: number, start: number): Promise<void> {
  const { source, buffer, tell } = work;
  try {
    return await readSource(source, offset, buffer);
  } catch (error) {
    toBlockError(error);
  }
  for (let done = 0; done < buffer.length; done += SECTOR_BYTES) {
    const part = buffer.subarray(done, done + SECTOR_BYTES);
    try {
      await readSource(source, offset + done, part);
    } catch (error) {
      const place = start + offset + done;
      tell(`error while reading offset ${place}: ${toBlockError(error).message}`);
      part.fill(0);
    }
  }
}

async function writeStep(request: CopyRequest, offset: number, step: Uint8Array): Promise<void> {
  const { target, compress, sparse } = request;
  if (sparse === 0 && !compress) return target.write(offset, step);
  const cluster = compress ? unitOf(target.node) : leastHole(target.node);
  const unit = Math.min(step.length, Math.max(512, sparse, cluster));
  const flags = compress ? RequestFlag.compressed : RequestFlag.none;
  for (let from = 0; from < step.length; ) {
    const zero = sparse > 0 && isZero(step.subarray(from, from + unit));
    let to = Math.min(step.length, from + unit);
    while (!compress && to < step.length) {
      if ((sparse > 0 && isZero(step.subarray(to, to + unit))) !== zero) break;
      to = Math.min(step.length, to + unit);
    }
    if (!zero) await target.write(offset + from, step.subarray(from, to), flags);
    else if (!request.targetIsZero) {
      await target.writeZeroes(offset + from, to - from, RequestFlag.mayUnmap);
    }
    from = to;
  }
}
