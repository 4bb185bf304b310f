// SPDX-License-Identifier: Apache-2.0
// Block status of many runs at once, in arrays: what walks over a million extents uses.
//
// A StatusRuns is a scratch object that its owner fills again and again. Neighbours that say the
// same and lie one after another become one run. All runs with a host offset are of one file.

import { settle, type Eventually } from '../base/index.js';
import type { BlockStatus } from './block-status.js';
import type { Node } from './node.js';

/** Bits of a run, named as the members of BlockStatus. */
export const StatusFlag = { allocated: 1, data: 2, zero: 4, compressed: 8 } as const;

/** Host offset of a run that is not stored as it reads. */
export const NOT_STORED = -1;

const CAPACITY = 4096;
/** Runs that are looked at for one filling, however few they become. */
const MOST_LOOKS = 65_536;

export class StatusRuns {
  /** Zeroes are to be told from data at some cost, as by the exact block status. */
  readonly exact: boolean;
  /** Runs end where the next is not right behind in the file; else host offsets mean nothing. */
  readonly #placed: boolean;
  count = 0;
  file: Node | null = null;
  /** Bytes; each run begins where the one before ends. */
  readonly lengths = new Float64Array(CAPACITY);
  readonly hostOffsets = new Float64Array(CAPACITY);
  readonly flags = new Uint8Array(CAPACITY);
  #looks = 0;

  constructor({ exact, placed }: { readonly exact: boolean; readonly placed: boolean }) {
    this.exact = exact;
    this.#placed = placed;
  }

  clear(): void {
    this.count = 0;
    this.file = null;
    this.#looks = 0;
  }

  get isFull(): boolean {
    return this.count === CAPACITY || this.#looks >= MOST_LOOKS;
  }

  /** Adds a run behind the others; not when full. */
  add(length: number, flags: number, hostOffset: number): void {
    this.#looks += 1;
    const last = this.count - 1;
    if (last >= 0 && this.flags[last] === flags) {
      const before = this.hostOffsets[last] ?? NOT_STORED;
      const known = this.lengths[last] ?? 0;
      const isNext =
        before === NOT_STORED ? hostOffset === NOT_STORED : before + known === hostOffset;
      if (isNext || !this.#placed) {
        this.lengths[last] = known + length;
        return;
      }
    }
    this.lengths[this.count] = length;
    this.flags[this.count] = flags;
    this.hostOffsets[this.count] = hostOffset;
    this.count += 1;
  }

  addStatus(status: BlockStatus): void {
    const flags =
      (status.allocated ? StatusFlag.allocated : 0) |
      (status.data ? StatusFlag.data : 0) |
      (status.zero ? StatusFlag.zero : 0) |
      (status.compressed ? StatusFlag.compressed : 0);
    this.file = status.file ?? this.file;
    this.add(status.length, flags, status.hostOffset ?? NOT_STORED);
  }
}

/**
 * Fills `runs` with the status of this layer from `offset` on: one run at least, and no more than
 * `length` bytes. Errors are those of the block status at the first byte that is not in a run.
 */
export function fillStatusRuns(
  node: Node,
  { offset, length }: { readonly offset: number; readonly length: number },
  runs: StatusRuns,
): Eventually<void> {
  runs.clear();
  const { driver, driverNode } = node;
  if (driver.supports.blockStatus === 'native' && driverNode.statusRuns !== undefined) {
    return driverNode.statusRuns(offset, length, runs);
  }
  return settle(node.blockStatus(offset, length, runs.exact), (status) => runs.addStatus(status));
}

/**
 * Bytes of data at `offset` of a file, or of a hole as a negative number: not 0, and no more than
 * `length`. Past its end it is a hole.
 */
export function dataSpan(file: Node, offset: number, length: number): Eventually<number> {
  const { driverNode } = file;
  if (driverNode.dataSpan !== undefined) return driverNode.dataSpan(offset, length);
  const end = file.length;
  if (offset >= end) return -length;
  const status = file.blockStatus(offset, Math.min(length, end - offset), true);
  return settle(status, (found) => (found.zero ? -found.length : found.length));
}
