// SPDX-License-Identifier: Apache-2.0
// Copy before write: what a guest's write must do first, so that a point in time stays readable.
//
// Before a write touches units that are still dirty, their old bytes go to the target; a unit that
// someone else copies now is waited for. Units are taken through the bitmap's range locks, so the
// job and the filter never copy the same unit twice. Then readers of the point in time are turned
// to the target, and only then the write begins.

import { BlockError, COPY_LIMITS, settleFinally } from '../../base/index.js';
import type { Clock, Eventually } from '../../base/index.js';
import { infoBelow } from '../inherited-info.js';
import type { Node } from '../node.js';
import type { CopyBitmap } from './copy-bitmap.js';
import type { CopyFailure, NodeRef } from './engine/index.js';
import { copyThroughGraph } from './graph-copy.js';
import type { Span } from './lane-plan.js';
import { PointInTime } from './point-in-time.js';

const LEAST_COPY_UNIT = 65_536;

/**
 * Bytes of one copy unit for a target: whole target clusters, 64 KiB and `least` bytes at least.
 * Throws kind `invalid-option` for a `least` that is no power of two (0 = none) or too large.
 */
export function copyUnit(target: Node, least = 0): number {
  if (least > COPY_LIMITS.unitMaxBytes) {
    const text = `min-cluster-size too large: ${least} > ${COPY_LIMITS.unitMaxBytes}`;
    throw new BlockError('invalid-option', text);
  }
  if (least !== 0 && !Number.isInteger(Math.log2(least))) {
    throw new BlockError('invalid-option', 'min-cluster-size needs to be a power of 2');
  }
  return Math.max(LEAST_COPY_UNIT, least, infoBelow(target).clusterSize ?? 0);
}

export interface CopyTimeout {
  readonly clock: Clock;
  readonly timeoutMs: number;
  /** Counts copies that may go on when their write has failed, so that a drain waits for them. */
  readonly enter: (offset: number, length: number) => () => void;
}

export interface CopyBeforeWriteOptions {
  readonly bitmap: CopyBitmap;
  /** The node with the guest's data, below the filter. */
  readonly source: NodeRef;
  readonly target: NodeRef;
  /** What a failed copy breaks: the guest's write, or the point in time. */
  readonly onError: 'break-guest-write' | 'break-snapshot';
  /** A copy that takes longer has failed; null: it may take as long as it does. */
  readonly timeout: CopyTimeout | null;
}

/** Typed internal options of the copy-before-write filter, when a job makes it. */
export interface CopyBeforeWriteInternal {
  readonly bitmap: CopyBitmap;
}

/** One write's copies; those not begun when it is given up are left undone. */
interface CopyCall extends Span {
  givenUp: boolean;
}

export class CopyBeforeWrite {
  readonly #options: CopyBeforeWriteOptions;
  readonly snapshot: PointInTime;

  constructor(options: CopyBeforeWriteOptions) {
    this.#options = options;
    this.snapshot = new PointInTime(options);
  }

  get bitmap(): CopyBitmap {
    return this.#options.bitmap;
  }

  /** Returns when the range may be written to; throws to fail the guest's write. */
  before(offset: number, length: number): Eventually<void> {
    const { bitmap } = this.#options;
    const start = Math.floor(offset / bitmap.unit) * bitmap.unit;
    // Whole units: the last one loses its dirty bit, so all of it has to be copied.
    const whole = Math.ceil((offset + length) / bitmap.unit) * bitmap.unit;
    const end = Math.min(bitmap.length, whole);
    if (end <= start) return undefined;
    const units = { offset: start, length: end - start };
    if (this.snapshot.broken !== null || this.#isCopied(units)) return this.snapshot.leave(units);
    return this.#copyFirst(units);
  }

  #isCopied({ offset, length }: Span): boolean {
    const { bitmap } = this.#options;
    return !bitmap.locks.overlaps(offset, length) && bitmap.nextDirty(offset, offset + length) < 0;
  }

  async #copyFirst(units: Span): Promise<void> {
    const { onError, timeout } = this.#options;
    const call = { ...units, givenUp: false };
    const error = timeout === null ? await this.#copyAll(call) : await this.#inTime(call, timeout);
    if (error !== null && onError === 'break-guest-write') throw error;
    if (error !== null) this.snapshot.break(error);
    const left = this.snapshot.leave(units);
    if (left !== undefined) await left;
  }

  /** The copy in flight goes on when the time is over; what it copies is not copied again. */
  async #inTime(call: CopyCall, timeout: CopyTimeout): Promise<BlockError | null> {
    const { clock, timeoutMs } = timeout;
    const over = timeout.enter(call.offset, call.length);
    let cancel = (): void => undefined;
    const expired = new Promise<BlockError>((resolve) => {
      cancel = clock.after(timeoutMs, () => resolve(tookTooLong(timeoutMs)));
    });
    try {
      return await Promise.race([settleFinally(() => this.#copyAll(call), over), expired]);
    } finally {
      call.givenUp = true;
      cancel();
    }
  }

  async #copyAll(call: CopyCall): Promise<BlockError | null> {
    const { bitmap } = this.#options;
    const end = call.offset + call.length;
    while (this.snapshot.broken === null && !call.givenUp) {
      const taken = bitmap.locks.wait(call.offset, call.length);
      if (taken !== undefined) {
        await taken;
        continue;
      }
      const dirty = bitmap.nextDirty(call.offset, end);
      if (dirty < 0) return null;
      const limit = Math.min(COPY_LIMITS.batchMaxBytes, end - dirty);
      const failure = await this.#copyRun({ offset: dirty, length: bitmap.dirtyRun(dirty, limit) });
      if (failure !== null) return copyError(failure);
    }
    return null;
  }

  async #copyRun(run: Span): Promise<CopyFailure | null> {
    const { bitmap, source, target } = this.#options;
    const release = bitmap.locks.take(run.offset, run.length);
    bitmap.clear(run.offset, run.length);
    try {
      const spec = { source, target, unit: bitmap.unit, zeroGranularity: bitmap.unit };
      const failure = await copyThroughGraph(spec, run);
      if (failure !== null) this.#giveBack(run);
      return failure;
    } finally {
      release();
    }
  }

  /** Nobody wants what was given up meanwhile. */
  #giveBack(run: Span): void {
    const { bitmap } = this.#options;
    const { access } = this.snapshot;
    for (let offset = run.offset; offset < run.offset + run.length; offset += bitmap.unit) {
      if (access.isDirty(offset)) bitmap.set(offset, 1);
    }
  }
}

function copyError({ error }: CopyFailure): BlockError {
  return new BlockError(error.kind, `Copying before the write failed: ${error.message}`, {
    errno: error.errno,
    cause: error,
  });
}

function tookTooLong(timeoutMs: number): BlockError {
  const text = `Copying before the write took longer than ${timeoutMs / 1000} s`;
  return new BlockError('io', text, { errno: 'ETIMEDOUT' });
}
