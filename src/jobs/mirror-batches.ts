// SPDX-License-Identifier: Apache-2.0
// The next things that a mirror copies: dirty units, in whole clusters of the target, several short
// ranges as one batch.
//
// A range is taken and its bits are cleared before the source is looked at, so what a guest writes
// from then on makes it dirty again. Ranges in flight are left alone until they are free.

import { BlockError, COPY_LIMITS } from '../base/index.js';
import type { Node } from '../block/index.js';
import { viewStatus } from '../block/copy/index.js';
import type { CopyFailure, CopySession, MirrorState } from '../block/copy/index.js';
import type { NodeRef, Span, ViewStatus } from '../block/copy/index.js';
import type { CopyWork, Hold } from './copy-loop.js';
import type { Job } from './job.js';

export interface MirrorBatchesOptions {
  readonly job: Job;
  readonly session: CopySession;
  readonly source: NodeRef;
  readonly state: MirrorState;
  /** Bytes; what is copied begins and ends at multiples of it. */
  readonly unit: number;
}

export class MirrorBatches {
  readonly #options: MirrorBatchesOptions;
  #cursor = 0;
  #inFlight = 0;
  /** From here up to there the source held data when it was last looked at. */
  #data: Span = { offset: 0, length: 0 };

  constructor(options: MirrorBatchesOptions) {
    this.#options = options;
  }

  /** A copy is in flight. */
  get working(): boolean {
    return this.#inFlight > 0;
  }

  async next(limit: number): Promise<CopyWork | Hold | null> {
    const { state, unit } = this.#options;
    const { bitmap } = state;
    const claims: Claim[] = [];
    for (let left = limit; claims.length < COPY_LIMITS.batchRuns; ) {
      if (claims.length > 0 && left < unit) break;
      const offset = this.#nextFree();
      if (offset < 0) break;
      const zeroes = await this.#zeroesAt(offset);
      const range = this.#rangeAt(offset, zeroes > 0 ? zeroes : left);
      if (range === null) continue;
      const claim = this.#claim(range, zeroes > 0);
      if (claim.zero && !(await this.#isStillZero(claim))) continue;
      claims.push(claim);
      if (!claim.zero) left -= claim.length;
    }
    if (claims.length > 0) return this.#workOf(claims);
    // Dirty ranges in flight, or a guest's write that may fail and give its range back.
    const others = bitmap.locks.wait(0, bitmap.length);
    return bitmap.dirtyUnits === 0 || others === undefined ? null : { until: others };
  }

  /** A dirty unit, rounded down, whose range nobody works on; −1 when there is none. */
  #nextFree(): number {
    const { bitmap } = this.#options.state;
    const ahead = this.#freeFrom(this.#cursor, bitmap.length);
    return ahead >= 0 ? ahead : this.#freeFrom(0, this.#cursor);
  }

  #freeFrom(from: number, end: number): number {
    const { unit, state } = this.#options;
    const { bitmap } = state;
    for (let at = from; at < end; ) {
      const dirty = bitmap.nextDirty(at, end);
      if (dirty < 0) return -1;
      const start = Math.floor(dirty / unit) * unit;
      if (!bitmap.locks.overlaps(start, Math.min(unit, bitmap.length - start))) return start;
      at = start + unit;
    }
    return -1;
  }

  /** Bytes of whole units at `offset` that read as zeroes now. */
  async #zeroesAt(offset: number): Promise<number> {
    const { source, state, unit } = this.#options;
    const data = this.#data;
    if (offset >= data.offset && offset < data.offset + data.length) return 0;
    const left = state.bitmap.length - offset;
    const asked = Math.min(left, COPY_LIMITS.zeroRangeBytes);
    const status = await statusOf(source.node, offset, asked);
    const whole = this.#wholeUnits(status.length, left);
    if (status.zero && whole > 0) return whole;
    this.#data = { offset, length: Math.max(whole, unit) };
    return 0;
  }

  #wholeUnits(length: number, left: number): number {
    return length >= left ? left : length - (length % this.#options.unit);
  }

  /** Whole units from `offset` on that are dirty and free; null when that one is not any more. */
  #rangeAt(offset: number, limit: number): Span | null {
    const { unit, state } = this.#options;
    const { bitmap } = state;
    const free = bitmap.locks.freeUntil(offset, bitmap.length);
    const inUnits = free === bitmap.length ? free : free - (free % unit);
    const most = Math.min(inUnits, offset + Math.max(unit, limit - (limit % unit)));
    let end = offset;
    while (end < most) {
      const dirty = bitmap.nextDirty(end, Math.min(most, end + unit));
      if (dirty < 0) break;
      const run = dirty + bitmap.dirtyRun(dirty, most - dirty);
      end = Math.min(most, Math.ceil(run / unit) * unit);
    }
    return end === offset ? null : { offset, length: end - offset };
  }

  /** Looks again now that the bits are clear; when false the range is given back. */
  async #isStillZero(claim: Claim): Promise<boolean> {
    const { source, state, unit } = this.#options;
    const { offset, length } = claim;
    const status = await statusOf(source.node, offset, length);
    if (status.zero && status.length >= length) return true;
    this.#data = { offset, length: Math.max(status.length, unit) };
    claim.giveBack();
    state.bitmap.set(offset, length);
    return false;
  }

  #claim({ offset, length }: Span, zero: boolean): Claim {
    const { bitmap } = this.#options.state;
    const release = bitmap.locks.take(offset, length);
    bitmap.clear(offset, length);
    this.#cursor = offset + length;
    this.#inFlight += length;
    const giveBack = (): void => {
      this.#inFlight -= length;
      release();
    };
    return { offset, length, zero, giveBack };
  }

  #workOf(claims: readonly Claim[]): CopyWork {
    const { state, job } = this.#options;
    const { bitmap } = state;
    const data = claims.filter(({ zero }) => !zero);
    return {
      cost: data.reduce((sum, { length }) => sum + length, 0),
      run: () => this.#copy(claims, data),
      over: (failure) => {
        for (const claim of claims) {
          if (failure === null) job.advance(claim.length);
          else bitmap.set(claim.offset, claim.length);
          claim.giveBack();
        }
        job.setTotal(job.progress + this.#inFlight + bitmap.dirtyUnits * bitmap.unit);
      },
    };
  }

  async #copy(claims: readonly Claim[], data: readonly Claim[]): Promise<CopyFailure | null> {
    const { session } = this.#options;
    for (const { offset, length, zero } of claims) {
      const failure = zero ? await session.zero(offset, length) : null;
      if (failure !== null) return failure;
    }
    return data.length > 0 ? session.copyAll(data) : null;
  }
}

/** A range whose bits are clear and that is held until it is given back. */
interface Claim extends Span {
  readonly zero: boolean;
  giveBack(): void;
}

/** Where it cannot be told the bytes are read, and the read says what is wrong. */
async function statusOf(node: Node, offset: number, length: number): Promise<ViewStatus> {
  try {
    return await viewStatus(node, offset, length);
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
    return { zero: false, length };
  }
}
