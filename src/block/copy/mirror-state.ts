// SPDX-License-Identifier: Apache-2.0
// What of a mirror's target differs from its source, shared by the job and its filter.
//
// A unit is dirty until a copy of it begins: whoever copies takes its range, clears its bits and
// only then looks at the source, so a write that ends later sets them again. Writes are seen by an
// observer of the source, however they reach it. In `write-blocking` mode the filter brings a
// write to the target before it is over; its range is taken meanwhile, so that the job's copies
// and the guest's never overlap there.

import { toBlockError } from '../../base/index.js';
import type { Eventually } from '../../base/index.js';
import type { Node, WriteObserver } from '../node.js';
import type { Request } from '../request.js';
import { writeRequest, zeroRequest, RequestFlag } from '../request.js';
import { CopyBitmap } from './copy-bitmap.js';
import type { CopyFailure, NodeRef } from './engine/index.js';

/** Typed internal options of the mirror filter. */
export interface MirrorInternal {
  readonly mirror: MirrorState;
}

export interface MirrorStateOptions {
  readonly length: number;
  /** Bytes that one bit stands for; a power of two. */
  readonly granularity: number;
  /** The filter asks nothing to stay as it was: what is read while a commit runs is its own. */
  readonly commits: boolean;
  /** Zeroes may be made by deallocating. */
  readonly unmap: boolean;
}

type Forward = (request: Request) => Eventually<void>;

export class MirrorState implements WriteObserver {
  readonly commits: boolean;
  readonly bitmap: CopyBitmap;
  readonly #unmap: boolean;
  /** Set while writes go to the target, too. */
  #target: NodeRef | null = null;
  /** Writes of the filter, which looks after their bits itself. */
  readonly #own = new Set<Request>();
  #changed: () => void = () => undefined;
  #failed: (failure: CopyFailure) => void = () => undefined;

  constructor(options: MirrorStateOptions) {
    this.commits = options.commits;
    this.#unmap = options.unmap;
    this.bitmap = new CopyBitmap(options.length, options.granularity, 'clean');
  }

  /** `changed` is called when something became dirty, `failed` when a guest's copy failed. */
  listen(changed: () => void, failed: (failure: CopyFailure) => void): void {
    this.#changed = changed;
    this.#failed = failed;
  }

  /** From now on writes end when the target has them, too. */
  block(target: NodeRef): void {
    this.#target = target;
  }

  /** Writes go to the source alone again. */
  unblock(): void {
    this.#target = null;
  }

  afterWrite(offset: number, length: number, request: Request): void {
    if (!this.#own.has(request)) this.markDirty(offset, length);
  }

  markDirty(offset: number, length: number): void {
    this.bitmap.set(offset, length);
    this.#changed();
  }

  /** A write or zeroing of the guest on its way down; discards are copied later. */
  write(request: Request, forward: Forward): Eventually<void> {
    const target = this.#target;
    if (target === null || request.length === 0) return forward(request);
    return this.#writeBoth(request, forward, target);
  }

  async #writeBoth(request: Request, forward: Forward, target: NodeRef): Promise<void> {
    const { bitmap } = this;
    const { unit } = bitmap;
    const start = Math.floor(request.offset / unit) * unit;
    const requestEnd = request.offset + request.length;
    const end = Math.min(bitmap.length, Math.ceil(requestEnd / unit) * unit);
    for (;;) {
      const taken = bitmap.locks.wait(start, end - start);
      if (taken === undefined) break;
      await taken;
    }
    const release = bitmap.locks.take(start, end - start);
    // A unit written in part is left to the job where it is dirty: the rest of it is due as well.
    const from = this.#coveredFrom(request.offset, start);
    const until = this.#coveredUntil(requestEnd, end);
    const whole = { offset: Math.ceil(request.offset / unit) * unit, end: 0 };
    whole.end = requestEnd >= bitmap.length ? end : Math.floor(requestEnd / unit) * unit;
    if (whole.end > whole.offset) bitmap.clear(whole.offset, whole.end - whole.offset);
    this.#own.add(request);
    let mirrored = false;
    try {
      await forward(request);
      mirrored = until <= from || (await this.#toTarget(target.node, request, { from, until }));
    } finally {
      this.#own.delete(request);
      if (!mirrored) bitmap.set(start, end - start);
      release();
      if (!mirrored) this.#changed();
    }
  }

  #coveredFrom(offset: number, start: number): number {
    const { bitmap } = this;
    return offset > start && bitmap.isDirty(start) ? start + bitmap.unit : offset;
  }

  #coveredUntil(requestEnd: number, end: number): number {
    const { bitmap } = this;
    const last = Math.floor((requestEnd - 1) / bitmap.unit) * bitmap.unit;
    return requestEnd < end && bitmap.isDirty(last) ? last : requestEnd;
  }

  /** False when the target could not take it: the range is dirty then, and the guest goes on. */
  async #toTarget(
    target: Node,
    request: Request,
    part: { readonly from: number; readonly until: number },
  ): Promise<boolean> {
    const { from, until } = part;
    try {
      if (request.buffer === null) {
        const flags = this.#unmap ? request.flags & RequestFlag.mayUnmap : RequestFlag.none;
        await target.writeZeroes(zeroRequest(from, until - from, flags));
      } else {
        const skip = from - request.offset;
        const bytes = request.buffer.subarray(skip, skip + until - from);
        await target.write(writeRequest(from, bytes));
      }
      return true;
    } catch (error) {
      this.#failed({ side: 'target', error: toBlockError(error) });
      return false;
    }
  }
}
