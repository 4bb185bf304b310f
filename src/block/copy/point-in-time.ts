// SPDX-License-Identifier: Apache-2.0
// A node as it was at one moment, read while guests write to it.
//
// A unit is read from the source until a guest is going to write to it, from then on from the
// target, where its old bytes have been copied before. A read of the source is noted while it
// runs: the write first turns later reads to the target, then waits for the noted ones. So no read
// sees anything of the write. Units that were never part of it, or were given up, are refused, and
// all of them are once it is broken: an old unit that was not kept is lost.

import { BlockError, settle, settleFinally } from '../../base/index.js';
import type { Eventually } from '../../base/index.js';
import { chainStatus } from '../block-status.js';
import type { BlockStatus } from '../block-status.js';
import type { Request } from '../request.js';
import type { SnapshotView } from '../snapshot-view.js';
import { CopyBitmap } from './copy-bitmap.js';
import type { NodeRef } from './engine/index.js';
import type { Span } from './lane-plan.js';
import { RangeLocks } from './range-locks.js';

export interface PointInTimeOptions {
  /** Dirty units are still to be copied; those dirty now are the ones that can be read. */
  readonly bitmap: CopyBitmap;
  readonly source: NodeRef;
  readonly target: NodeRef;
}

export class PointInTime implements SnapshotView {
  readonly #options: PointInTimeOptions;
  /** Dirty: can be read. */
  readonly access: CopyBitmap;
  /** Dirty: written to since, so that the old bytes are those of the target. */
  readonly done: CopyBitmap;
  readonly #sourceReads = new RangeLocks();
  #broken: BlockError | null = null;

  constructor(options: PointInTimeOptions) {
    const { bitmap } = options;
    this.#options = options;
    this.access = bitmap.clone();
    this.done = new CopyBitmap(bitmap.length, bitmap.unit, 'clean');
  }

  get length(): number {
    return this.#options.bitmap.length;
  }

  /** What an old unit was lost for. */
  get broken(): BlockError | null {
    return this.#broken;
  }

  break(error: BlockError): void {
    this.#broken ??= error;
  }

  /**
   * Whole units that have been copied are about to change in the source; returns when nobody reads
   * them there any more.
   */
  leave(units: Span): Eventually<void> {
    if (this.#broken === null) this.done.set(units.offset, units.length);
    if (!this.#sourceReads.overlaps(units.offset, units.length)) return undefined;
    return this.#waitForReads(units);
  }

  async #waitForReads({ offset, length }: Span): Promise<void> {
    for (let reads = this.#sourceReads.wait(offset, length); reads !== undefined; ) {
      await reads;
      reads = this.#sourceReads.wait(offset, length);
    }
  }

  read(request: Request): Eventually<void> {
    const length = this.#sameSide(request);
    return length === request.length ? this.#readRun(request) : this.#readRuns(request);
  }

  async #readRuns(request: Request): Promise<void> {
    for (let at = 0; at < request.length; ) {
      const rest = { offset: request.offset + at, length: request.length - at };
      // Asked anew each time: a write may have come in between.
      const length = this.#sameSide(rest);
      const buffer = request.buffer?.subarray(at, at + length) ?? null;
      await this.#readRun({ ...request, offset: rest.offset, length, buffer });
      at += length;
    }
  }

  #readRun(request: Request): Eventually<void> {
    const { source, target } = this.#options;
    if (this.done.isDirty(request.offset)) return target.node.read(request);
    return this.#reading(request, () => source.node.read(request));
  }

  /** Writes to the range wait until `work` has ended. */
  #reading<T>(span: Span, work: () => Eventually<T>): Eventually<T> {
    const release = this.#sourceReads.join(span.offset, span.length);
    return settleFinally(work, release);
  }

  blockStatus(offset: number, length: number, exact: boolean): Eventually<BlockStatus> {
    const { source, target } = this.#options;
    const range = { offset, length: this.#sameSide({ offset, length }), exact };
    const status = this.done.isDirty(offset)
      ? chainStatus(target.node, null, range)
      : this.#reading(range, () => chainStatus(source.node, null, range));
    return settle(status, ({ length: known, data, zero }) => ({
      length: known,
      allocated: true,
      data,
      zero,
      compressed: false,
    }));
  }

  discard(request: Request): Eventually<void> {
    const { bitmap, target } = this.#options;
    const offset = Math.ceil(request.offset / bitmap.unit) * bitmap.unit;
    const last = request.offset + request.length;
    const end = last >= bitmap.length ? bitmap.length : last - (last % bitmap.unit);
    if (end <= offset) return undefined;
    this.access.clear(offset, end - offset);
    bitmap.clear(offset, end - offset);
    // A target that is too short has kept nothing there.
    const length = Math.min(end, target.node.length) - offset;
    if (length <= 0) return undefined;
    return this.#discardTarget({ ...request, offset, length });
  }

  flush(): Eventually<void> {
    return this.#options.target.node.flush();
  }

  async #discardTarget(request: Request): Promise<void> {
    const { bitmap, target } = this.#options;
    const { offset, length } = request;
    for (let copies = bitmap.locks.wait(offset, length); copies !== undefined; ) {
      await copies;
      copies = bitmap.locks.wait(offset, length);
    }
    await target.node.discard(request);
  }

  /** Bytes from the offset on that one side has; throws when some of the range cannot be read. */
  #sameSide({ offset, length }: Span): number {
    if (this.#broken !== null || !this.access.isAllDirty(offset, length)) {
      throw new BlockError('access-denied', 'Permission denied', {
        offset,
        operation: 'snapshot-read',
        ...(this.#broken === null ? {} : { cause: this.#broken }),
      });
    }
    const { done } = this;
    const end = offset + length;
    if (!done.isDirty(offset)) {
      const next = done.nextDirty(offset, end);
      return next < 0 ? length : next - offset;
    }
    const start = offset - (offset % done.unit);
    return Math.min(end, start + done.dirtyRun(start, end - start + done.unit)) - offset;
  }
}
