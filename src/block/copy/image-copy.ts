// SPDX-License-Identifier: Apache-2.0
// Copies a whole view into a target with several batches in flight: what `convert` does.
//
// Long zero ranges cost one request each, never a scan. Nothing is flushed here.

import { COPY_LIMITS, InFlight, toBlockError } from '../../base/index.js';
import type { Clock } from '../../base/index.js';
import { viewStatus } from './chain.js';
import type { CopyEngine, CopyFailure, CopySession, CopySpec } from './engine/index.js';
import type { Span } from './lane-plan.js';
import { RateLimiter } from './rate-limit.js';

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

interface Step extends Span {
  readonly zero: boolean;
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
      if (!step.zero) limiter.charge(step.length);
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
  return step.zero
    ? session.zero(step.offset, step.length)
    : session.copy(step.offset, step.length);
}

/**
 * Cuts the view into steps: zeroes as far as they go, data in whole batches, however short the
 * runs are that a node tells of (a compressed cluster is one of its own).
 */
class StepPlanner {
  readonly #spec: CopySpec;
  readonly #length: number;
  /** Up to here the view is known to hold data, or zeroes too short for a step of their own. */
  #dataUntil = 0;

  constructor(spec: CopySpec, length: number) {
    this.#spec = spec;
    this.#length = length;
  }

  async next(offset: number, sliceBytes: number): Promise<Step> {
    const { unit, compress } = this.#spec;
    if (offset >= this.#dataUntil) {
      const zeroes = await this.#zeroesAt(offset);
      if (zeroes > 0) return { offset, length: zeroes, zero: true };
    }
    const most = compress === true ? COPY_LIMITS.compressedBatchBytes : COPY_LIMITS.batchBytes;
    const limit = Math.min(this.#length - offset, batchBytes(unit, sliceBytes, most));
    while (this.#dataUntil < offset + limit) {
      const zeroes = await this.#zeroesAt(this.#dataUntil);
      if (zeroes >= COPY_LIMITS.batchMinBytes) break;
      this.#dataUntil += zeroes;
    }
    return { offset, length: Math.min(limit, this.#dataUntil - offset), zero: false };
  }

  /** Whole units of zeroes at `offset`; 0 when there is data, which is then known. */
  async #zeroesAt(offset: number): Promise<number> {
    const { unit, source } = this.#spec;
    const left = this.#length - offset;
    let length = 0;
    while (length < left) {
      const asked = Math.min(left - length, COPY_LIMITS.zeroRangeBytes);
      const status = await viewStatus(source.node, offset + length, asked);
      const whole = length + status.length >= left ? left : floorTo(length + status.length, unit);
      if (!status.zero) {
        if (length === 0) this.#dataUntil = offset + Math.max(unit, whole);
        break;
      }
      length += status.length;
    }
    const zeroes = length >= left ? left : floorTo(length, unit);
    if (zeroes === 0) {
      const end = Math.min(this.#length, offset + unit);
      this.#dataUntil = Math.max(this.#dataUntil, end);
    }
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
