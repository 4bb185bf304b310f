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
