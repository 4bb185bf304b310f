// SPDX-License-Identifier: Apache-2.0
// A job's one walk over its image, from the first byte to the last: what is due is claimed in whole
// units for the copy loop, several short ranges as one batch, and what is not is passed by.
//
// The cursor never goes back. What failed and is to be tried again comes after all else; progress
// is what lies before the first byte that is still in flight or has failed.

import { BlockError, COPY_LIMITS, must } from '../base/index.js';
import { yieldToLoop } from '../block/copy/index.js';
import type { CopyFailure, Span } from '../block/copy/index.js';
import type { CopyWork, Hold } from './copy-loop.js';
import type { Job } from './job.js';
import { ScanPace } from './scan-pace.js';

export interface DueStatus {
  readonly due: boolean;
  /** Bytes of which the same is true, at least 1. */
  readonly length: number;
}

export interface DueWalkOptions {
  readonly job: Job;
  readonly length: number;
  /** Claims begin and end at multiples of it, or at the end of the image. */
  readonly unit: number;
  /** False where a failure that is ignored stays as it is. */
  readonly retries: boolean;
  statusAt(offset: number, end: number): Promise<DueStatus>;
  copy(spans: readonly Span[]): Promise<CopyFailure | null>;
}

export class DueWalk {
  readonly #options: DueWalkOptions;
  readonly #pace = new ScanPace();
  /** Ranges claimed and not yet copied; those that failed are in `#failed` until tried again. */
  readonly #due = new Set<number>();
  readonly #failed = new Map<number, readonly Span[]>();
  #cursor = 0;
  /** Up to here what follows the cursor was due when it was last looked at. */
  #knownDue = 0;

  constructor(options: DueWalkOptions) {
    this.#options = options;
  }

  /** The next ranges, of at most `limit` bytes; null when nothing is left to be claimed. */
  async next(limit: number): Promise<CopyWork | Hold | null> {
    const { length, unit } = this.#options;
    const spans: Span[] = [];
    let left = limit;
    while (this.#cursor < length && spans.length < COPY_LIMITS.batchRuns) {
      if (spans.length > 0 && left < unit) break;
      if (this.#pace.due()) {
        if (spans.length > 0) break;
        return { until: yieldToLoop() };
      }
      if (this.#cursor >= this.#knownDue) {
        const status = await this.#status(this.#cursor, length, spans.length > 0);
        if (status === null) break;
        if (!status.due) {
          this.#cursor += status.length;
          if (this.#due.size === 0 && spans.length === 0) this.#tell();
          continue;
        }
        this.#knownDue = this.#cursor + status.length;
      }
      const span = await this.#dueAt(this.#knownDue, left);
      if (spans.length === 0) this.#due.add(span.offset);
      spans.push(span);
      left -= span.length;
      this.#cursor = span.offset + span.length;
    }
    return spans.length > 0 ? this.#claim(spans) : this.#retry();
  }

  /** What is due at the cursor, in whole units; known to be up to `until`. */
  async #dueAt(known: number, limit: number): Promise<Span> {
    const { length, unit } = this.#options;
    const offset = Math.floor(this.#cursor / unit) * unit;
    const most = Math.min(offset + limit, length);
    const until = await this.#dueUntil(known, most);
    return { offset, length: Math.min(Math.ceil(until / unit) * unit, most) - offset };
  }

  /** Up to where what is due goes on: layers tell of it in short runs. */
  async #dueUntil(from: number, most: number): Promise<number> {
    for (let at = from; at < most; ) {
      const status = await this.#status(at, most, true);
      if (status?.due !== true) return at;
      at += status.length;
    }
    return Math.max(from, most);
  }

  /** With work to go on with, null where it cannot be told: that is asked again without. */
  async #status(offset: number, end: number, hasWork: boolean): Promise<DueStatus | null> {
    try {
      return await this.#options.statusAt(offset, end);
    } catch (error) {
      if (!hasWork || !(error instanceof BlockError)) throw error;
      return null;
    }
  }

  #claim(spans: readonly Span[]): CopyWork {
    const { offset } = must(spans[0], 'something is claimed');
    return {
      cost: spans.reduce((sum, { length }) => sum + length, 0),
      run: () => this.#options.copy(spans),
      over: (failure) => {
        this.#due.delete(offset);
        if (failure !== null && this.#options.retries) this.#failed.set(offset, spans);
        else this.#tell();
      },
    };
  }

  #retry(): CopyWork | null {
    for (const [offset, spans] of this.#failed) {
      this.#failed.delete(offset);
      this.#due.add(offset);
      return this.#claim(spans);
    }
    return null;
  }

  #tell(): void {
    let open = this.#cursor;
    for (const offset of this.#due) open = Math.min(open, offset);
    for (const offset of this.#failed.keys()) open = Math.min(open, offset);
    this.#options.job.progressTo(open);
  }
}
