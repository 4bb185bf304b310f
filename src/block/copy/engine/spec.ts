// SPDX-License-Identifier: Apache-2.0
// What a copy session is asked for, and how it fails: failures are values that name their side.

import { BlockError } from '../../../base/index.js';
import type { Node } from '../../node.js';
import type { Span } from '../lane-plan.js';
import type { LaneFailure } from '../lane-task.js';

/** Looked up again after every await, since graph changes replace nodes (a Child or a Backend). */
export interface NodeRef {
  readonly node: Node;
}

export interface CopyFailure {
  readonly side: 'source' | 'target';
  readonly error: BlockError;
}

export interface CopySpec {
  /** What to copy is the whole view of this node, its backing chain included. */
  readonly source: NodeRef;
  readonly target: NodeRef;
  /** Bytes; ranges are multiples of it but for the end: the target's cluster size. */
  readonly unit: number;
  /**
   * Zeroes in data are found in units of this many bytes (power of two; a target cluster at
   * least); 0 = not looked for.
   */
  readonly zeroGranularity: number;
  /** The target reads as zeroes wherever nothing was copied yet: zeroes need no writing. */
  readonly targetIsZero?: boolean;
  /** False: zeroes are written so that their space stays theirs. */
  readonly unmap?: boolean;
  /** The target is flushed when all is copied: its writing back may begin meanwhile. */
  readonly flushedSoon?: boolean;
  /** The host may copy by itself; zeroes in data are not looked for. */
  readonly hostCopies?: boolean;
  /** Write compressed clusters, in the order of the calls. */
  readonly compress?: boolean;
  /**
   * The target is an overlay whose unallocated clusters are filled with what they read as; a
   * guest that writes meanwhile wins. Called instead when lanes cannot do it.
   */
  readonly fill?: (offset: number, length: number) => Promise<CopyFailure | null>;
}

/** All are tried, one after another; gives the first failure. */
export async function eachSpan<T extends Span>(
  spans: readonly T[],
  work: (span: T) => Promise<CopyFailure | null>,
): Promise<CopyFailure | null> {
  let failure: CopyFailure | null = null;
  for (const span of spans) {
    const result = await work(span);
    failure ??= result;
  }
  return failure;
}

/** `offset`: the guest byte that the failed piece begins at. */
export function failureOf(failure: LaneFailure | null, offset: number): CopyFailure {
  if (failure === null) {
    return { side: 'source', error: new BlockError('cancelled', 'Operation canceled') };
  }
  const { side, kind, message, errno } = failure;
  return { side, error: new BlockError(kind, message, { errno, offset }) };
}
