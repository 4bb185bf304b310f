// SPDX-License-Identifier: Apache-2.0
// The answer to "what is at this offset": how far it holds, who decides it, how it reads.

import { settle, type Eventually } from '../base/index.js';
import type { ChainStatus } from './graph-api.js';
import type { Node } from './node.js';

export interface BlockStatus {
  /** Bytes it holds for, from the offset asked; at least 1 and at most the length asked. */
  readonly length: number;
  /** The content comes from this layer and not from its backing file. */
  readonly allocated: boolean;
  /** Bytes are stored (in `file` when hostOffset is given). */
  readonly data: boolean;
  /** Reads as zeroes. */
  readonly zero: boolean;
  readonly compressed: boolean;
  /** Where the bytes are in `file`; absent when they are not stored as they read. */
  readonly hostOffset?: number;
  readonly file?: Node;
  /** The stored bytes may be a hole of `file`: an exact status looks there. */
  readonly recurse?: boolean;
}

/**
 * Follows a status into the file that stores the bytes: a hole there reads as zeroes. The answer
 * never holds for longer than either layer says.
 */
export function exactStatus(status: BlockStatus): Eventually<BlockStatus> {
  const { file, hostOffset } = status;
  if (status.recurse !== true || status.zero || file === undefined || hostOffset === undefined) {
    return status;
  }
  const end = file.length;
  if (hostOffset >= end) return { ...status, zero: true };
  const known = Math.min(status.length, end - hostOffset);
  return settle(file.blockStatus(hostOffset, known, true), (below) => ({
    ...status,
    length: Math.min(status.length, below.length),
    zero: below.zero,
  }));
}

export interface ChainRange {
  readonly offset: number;
  readonly length: number;
  readonly exact: boolean;
}

/**
 * Looks down the chain from `top` to `base` (exclusive; null = to the end) for the layer that
 * decides what is read at the offset. Filters are looked through and not counted in `depth`. Where
 * a layer is shorter than the range, the part beyond its end reads as zeroes and counts as
 * allocated there, so that it is never looked up further down.
 */
export function chainStatus(
  top: Node,
  base: Node | null,
  range: ChainRange,
): Eventually<ChainStatus> {
  if (top === base) return undecided(range.length, 0);
  return statusFrom({ node: top, depth: 0 }, base, range);
}

interface ChainPosition {
  readonly node: Node;
  readonly depth: number;
}

function statusFrom(
  at: ChainPosition,
  base: Node | null,
  range: ChainRange,
): Eventually<ChainStatus> {
  const { node, depth } = at;
  const { offset, length, exact } = range;
  const end = node.length;
  if (offset >= end) {
    const zeroes = { allocated: true, data: false, zero: true, compressed: false };
    return { ...zeroes, length, depth };
  }
  if (node.filtered !== null) {
    if (node.filtered === base) return undecided(length, depth);
    return statusFrom({ node: node.filtered, depth }, base, range);
  }
  const known = Math.min(length, end - offset);
  return settle(node.blockStatus(offset, known, exact), (status) => {
    const below = node.backing;
    if (status.allocated || below === base) return { ...status, depth };
    if (below === null) return { ...status, data: false, zero: true, depth };
    const rest = { offset, length: status.length, exact };
    return statusFrom({ node: below, depth: depth + 1 }, base, rest);
  });
}

function undecided(length: number, depth: number): ChainStatus {
  return { length, allocated: false, data: false, zero: false, compressed: false, depth };
}

/** Bits of a run of StatusRuns, named as the members of BlockStatus. */
export const StatusFlag = { allocated: 1, data: 2, zero: 4, compressed: 8 } as const;

/** Host offset of a run that is not stored as it reads. */
export const NOT_STORED = -1;

const CAPACITY = 4096;
/** Runs that are looked at for one filling, however few they become. */
const MOST_LOOKS = 65_536;

/**
 * Block status of many runs at once, in arrays: what walks over a million extents uses. A scratch
 * object that its owner fills again and again. Neighbours that say the same and lie one after
 * another become one run. All runs with a host offset are of one file.
 */
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
