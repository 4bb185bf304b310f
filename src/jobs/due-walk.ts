// SPDX-License-Identifier: Apache-2.0
// A job's one walk over its image, from the first byte to the last: what is due is claimed in whole
// units for the copy loop, what is not is passed by.
//
// The cursor never goes back. What failed and is to be tried again comes after all else; progress
// is what lies before the first byte that is still in flight or has failed.

import { yieldToLoop } from '../block/copy/index.js';
import type { CopyFailure } from '../block/copy/index.js';
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
  copy(offset: number, length: number): Promise<CopyFailure | null>;
}

export class DueWalk {
  readonly #options: DueWalkOptions;
  readonly #pace = new ScanPace();
  /** Ranges claimed and not yet copied; those that failed are in `#failed` until tried again. */
  readonly #due = new Set<number>();
  readonly #failed = new Map<number, number>();
  #cursor = 0;

  constructor(options: DueWalkOptions) {
    this.#options = options;
  }

  /** The next range of at most `limit` bytes; null when nothing is left that could be claimed. */
  async next(limit: number): Promise<CopyWork | Hold | null> {
    const { length, unit } = this.#options;
    while (this.#cursor < length) {
      if (this.#pace.due()) return { until: yieldToLoop() };
      const status = await this.#options.statusAt(this.#cursor, length);
      if (status.due) {
        const start = Math.floor(this.#cursor / unit) * unit;
        const most = Math.min(start + limit, length);
        const until = await this.#dueUntil(this.#cursor + status.length, most);
        const end = Math.min(Math.ceil(until / unit) * unit, most);
        return this.#claim(start, end - start);
      }
      this.#cursor += status.length;
      if (this.#due.size === 0) this.#tell();
    }
    return this.#retry();
  }

  /** Up to where what is due goes on: layers tell of it in short runs. */
  async #dueUntil(from: number, most: number): Promise<number> {
    for (let at = from; at < most; ) {
      const status = await this.#options.statusAt(at, most);
      if (!status.due) return at;
      at += status.length;
    }
    return Math.max(from, most);
  }

  #claim(offset: number, length: number): CopyWork {
    this.#cursor = Math.max(this.#cursor, offset + length);
    this.#due.add(offset);
    return {
      offset,
      length,
      cost: length,
      run: () => this.#options.copy(offset, length),
      over: (failure) => {
        this.#due.delete(offset);
        if (failure !== null && this.#options.retries) this.#failed.set(offset, length);
        else this.#tell();
      },
    };
  }

  #retry(): CopyWork | null {
    for (const [offset, length] of this.#failed) {
      this.#failed.delete(offset);
      return this.#claim(offset, length);
    }
    return null;
  }

  #tell(): void {
    const open = Math.min(...this.#due, ...this.#failed.keys());
    this.#options.job.progressTo(Math.min(this.#cursor, open));
  }
}
