// SPDX-License-Identifier: Apache-2.0
// Copies a whole view into a target with several batches in flight: what `convert` does.
//
// Long zero ranges cost one request each, never a scan. Nothing is flushed here.

import { COPY_LIMITS, InFlight, toBlockError } from '../../base/index.js';
import type { Clock } from '../../base/index.js';
import type { CopyEngine, CopyFailure, CopySession, CopySpec } from './engine/index.js';
import type { Span } from './lane-plan.js';
import { RateLimiter } from './rate-limit.js';
import { ViewRuns } from './view-runs.js';

export interface ImageCopyOptions extends CopySpec {
  /** Bytes to copy from the start; the source's length unless given. */
  readonly length?: number;
  /** Batches in flight, 1 to COPY_LIMITS.batchesPerJob; 1 writes the target in order. */
  readonly inFlight?: number;
  /** Bytes per second; 0 or absent = no limit. */
  readonly speed?: number;
  /** Bytes settled so far, rising to `length`. */
  onProgress?(bytes: number): void;
  /** Asked before each batch; true ends the copy early with kind `cancelled`. */
  cancelled?(): boolean;
}

/** What is done at once, of the range from `offset` on. */
interface Step extends Span {
  readonly zeroes: readonly Span[];
  readonly data: readonly Span[];
}

/** Null when everything was copied, else the first failure; nothing is in flight afterwards. */
export async function copyImage(
  engine: CopyEngine,
  clock: Clock,
  options: ImageCopyOptions,
): Promise<CopyFailure | null> {
  const session = engine.open(options);
  const length = options.length ?? options.source.node.length;
  const window = Math.min(options.inFlight ?? engine.lanes.width * 2, COPY_LIMITS.batchesPerJob);
  const limiter = new RateLimiter(clock);
  limiter.setSpeed(options.speed ?? 0);
  const inFlight = new InFlight();
  let failure: CopyFailure | null = null;
  let done = 0;
  const steps = new StepPlanner(options, length);
  const start = (step: Step): void => {
    const over = (result: CopyFailure | null): void => {
      failure ??= result;
      done += step.length;
      if (result === null) options.onProgress?.(done);
    };
    inFlight.add(runStep(session, step).then(over));
  };
  for (let offset = 0; offset < length && failure === null; ) {
    if (options.cancelled?.() === true) {
      session.cancel();
      break;
    }
    if (inFlight.size >= window) {
      await inFlight.oneEnds();
      continue;
    }
    const delay = limiter.delayMs();
    if (delay > 0) {
      await new Promise<void>((resolve) => void clock.after(delay, resolve));
    }
    try {
      const step = await steps.next(offset, limiter.sliceBytes);
      for (const { length: bytes } of step.data) limiter.charge(bytes);
      start(step);
      offset += step.length;
    } catch (error) {
      failure = { side: 'source', error: toBlockError(error) };
    }
    await yieldToLoop();
  }
  await inFlight.allEnd();
  return failure;
}

async function runStep(session: CopySession, step: Step): Promise<CopyFailure | null> {
  let failure: CopyFailure | null = null;
  for (const { offset, length } of step.zeroes) failure ??= await session.zero(offset, length);
  if (failure !== null || step.data.length === 0) return failure;
  return session.copyAll(step.data);
}

/**
 * Cuts the view into steps: zeroes as far as they go, data in whole batches, however short the
 * runs are that a node tells of (a compressed cluster is one of its own), and several of them
 * where zeroes lie between that are worth leaving out.
 */
class StepPlanner {
  readonly #spec: CopySpec;
  readonly #length: number;
  readonly #runs: ViewRuns;
  /** Up to here the view is known to hold data, or zeroes too short to be left out. */
  #dataUntil = 0;
  /** Zeroes that were found behind them. */
  #zeroesFrom = 0;
  #zeroesUntil = 0;

  constructor(spec: CopySpec, length: number) {
    this.#spec = spec;
    this.#length = length;
    this.#runs = new ViewRuns(spec.source.node);
  }

  async next(offset: number, sliceBytes: number): Promise<Step> {
    const { unit, compress } = this.#spec;
    const most = compress === true ? COPY_LIMITS.compressedBatchBytes : COPY_LIMITS.batchBytes;
    // Compressed clusters are stored in the order of the batches.
    const runs = compress === true ? 1 : COPY_LIMITS.batchRuns;
    const zeroes: Span[] = [];
    const data: Span[] = [];
    let at = offset;
    let left = batchBytes(unit, sliceBytes, most);
    while (at < this.#length && left >= unit && data.length < runs && zeroes.length < runs) {
      const zero = at < this.#dataUntil ? 0 : await this.#zeroesAt(at);
      const length = zero > 0 ? zero : await this.#dataAt(at, Math.min(left, this.#length - at));
      (zero > 0 ? zeroes : data).push({ offset: at, length });
      if (zero === 0) left -= length;
      at += length;
    }
    return { offset, length: at - offset, zeroes, data };
  }

  /** Bytes of data at `offset`, where there are some, with zeroes between that are too short. */
  async #dataAt(offset: number, limit: number): Promise<number> {
    while (this.#dataUntil < offset + limit) {
      const zeroes = await this.#zeroesAt(this.#dataUntil);
      if (zeroes >= COPY_LIMITS.batchMinBytes) break;
      this.#dataUntil += zeroes;
    }
    return Math.min(limit, this.#dataUntil - offset);
  }

  /** Whole units of zeroes at `offset`; 0 when there is data, which is then known. */
  async #zeroesAt(offset: number): Promise<number> {
    if (offset === this.#zeroesFrom && this.#zeroesUntil > offset) {
      return this.#zeroesUntil - offset;
    }
    const { unit } = this.#spec;
    const runs = this.#runs;
    const left = this.#length - offset;
    let length = 0;
    while (length < left) {
      const found = runs.find(offset + length);
      if (found instanceof Promise) await found;
      const end = Math.min(left, length + runs.lengthFrom(offset + length));
      if (!runs.isZero) {
        const whole = end === left ? left : floorTo(end, unit);
        if (length === 0) this.#dataUntil = offset + Math.max(Math.min(unit, left), whole);
        break;
      }
      length = end;
    }
    const zeroes = length >= left ? left : floorTo(length, unit);
    if (zeroes === 0) {
      const end = Math.min(this.#length, offset + unit);
      this.#dataUntil = Math.max(this.#dataUntil, end);
    }
    this.#zeroesFrom = offset;
    this.#zeroesUntil = offset + zeroes;
    return zeroes;
  }
}

/** Bytes of one batch: a slice of quota at most, whole units, at least one. */
export function batchBytes(unit: number, sliceBytes: number, limit = Infinity): number {
  const bytes = Math.min(COPY_LIMITS.batchBytes, sliceBytes, limit);
  return Math.max(unit, floorTo(bytes, unit));
}

function floorTo(value: number, unit: number): number {
  return Math.floor(value / unit) * unit;
}

/** Lets timers and sockets have their turn. */
export function yieldToLoop(): Promise<void> {
  return new Promise((resolve) => {
    setImmediate(resolve);
  });
}
