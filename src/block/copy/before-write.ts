// SPDX-License-Identifier: Apache-2.0
// Copy before write: what a guest's write must do first, so that a point in time stays readable.
//
// Before a write touches units that are still dirty, their old bytes go to the target; a unit that
// someone else copies now is waited for. Units are taken through the bitmap's range locks, so the
// job and the filter never copy the same unit twice.

import { BlockError, COPY_LIMITS } from '../../base/index.js';
import type { Eventually } from '../../base/index.js';
import type { Node } from '../node.js';
import type { CopyBitmap } from './copy-bitmap.js';
import type { CopyFailure, NodeRef } from './copy-engine.js';
import { copyThroughGraph } from './graph-copy.js';
import type { Span } from './lane-plan.js';

const LEAST_COPY_UNIT = 65_536;

/** Bytes of one copy unit for a target: whole target clusters, 64 KiB at least. */
export function copyUnit(target: Node): number {
  return Math.max(LEAST_COPY_UNIT, target.info.clusterSize ?? 0);
}

export interface CopyBeforeWriteOptions {
  readonly bitmap: CopyBitmap;
  /** The node with the guest's data, below the filter. */
  readonly source: NodeRef;
  readonly target: NodeRef;
  /** What a failed copy breaks: the guest's write, or the point in time. */
  readonly onError: 'break-guest-write' | 'break-snapshot';
}

/** Typed internal options of the copy-before-write filter, when a job makes it. */
export interface CopyBeforeWriteInternal {
  readonly bitmap: CopyBitmap;
}

export class CopyBeforeWrite {
  readonly #options: CopyBeforeWriteOptions;
  #broken: BlockError | null = null;

  constructor(options: CopyBeforeWriteOptions) {
    this.#options = options;
  }

  /** Set once a copy failed under `break-snapshot`: the target is of no use any more. */
  get broken(): BlockError | null {
    return this.#broken;
  }

  /** Returns when nothing of the range is left to copy; throws to fail the guest's write. */
  before(offset: number, length: number): Eventually<void> {
    const { bitmap } = this.#options;
    if (this.#broken !== null) return undefined;
    const start = Math.floor(offset / bitmap.unit) * bitmap.unit;
    // Whole units: the last one loses its dirty bit, so all of it has to be copied.
    const whole = Math.ceil((offset + length) / bitmap.unit) * bitmap.unit;
    const end = Math.min(bitmap.length, whole);
    if (end <= start) return undefined;
    if (!bitmap.locks.overlaps(start, end - start)) {
      if (bitmap.nextDirty(start, end) < 0) return undefined;
    }
    return this.#copyAll(start, end);
  }

  async #copyAll(start: number, end: number): Promise<void> {
    const { bitmap } = this.#options;
    while (this.#broken === null) {
      const taken = bitmap.locks.wait(start, end - start);
      if (taken !== undefined) {
        await taken;
        continue;
      }
      const dirty = bitmap.nextDirty(start, end);
      if (dirty < 0) return;
      const limit = Math.min(COPY_LIMITS.batchMaxBytes, end - dirty);
      const failure = await this.#copyRun({ offset: dirty, length: bitmap.dirtyRun(dirty, limit) });
      if (failure !== null) this.#fail(failure);
    }
  }

  async #copyRun(run: Span): Promise<CopyFailure | null> {
    const { bitmap, source, target } = this.#options;
    const release = bitmap.locks.take(run.offset, run.length);
    bitmap.clear(run.offset, run.length);
    let failure: CopyFailure | null = null;
    try {
      const spec = { source, target, unit: bitmap.unit, zeroGranularity: bitmap.unit };
      failure = await copyThroughGraph(spec, run);
      return failure;
    } finally {
      if (failure !== null) bitmap.set(run.offset, run.length);
      release();
    }
  }

  #fail(failure: CopyFailure): void {
    const { error } = failure;
    if (this.#options.onError === 'break-snapshot') {
      this.#broken = error;
      return;
    }
    throw new BlockError(error.kind, `Copying before the write failed: ${error.message}`, {
      errno: error.errno,
      cause: error,
    });
  }
}
