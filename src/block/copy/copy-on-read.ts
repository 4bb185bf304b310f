// SPDX-License-Identifier: Apache-2.0
// Copy on read: fills unallocated clusters of an overlay with what they read as.
//
// A fill reads the view and writes the same bytes into the overlay, so what the node reads as does
// not change. It has its clusters to itself (Node.exclusive): no write comes between its read and
// its own write.

import { COPY_LIMITS, toBlockError } from '../../base/index.js';
import type { Eventually } from '../../base/index.js';
import { isZero } from '../../codec/index.js';
import type { Node } from '../node.js';
import { readRequest, RequestFlag, writeRequest, zeroRequest } from '../request.js';
import type { Request } from '../request.js';
import { layerStatus } from './chain.js';
import type { CopyFailure, NodeRef } from './engine/index.js';
import type { Span } from './lane-plan.js';

export interface CopyOnReadOptions {
  /** The node that stores the overlay; no filter. */
  readonly overlay: NodeRef;
  /** Layers from here on (inclusive) are not copied; null: the whole chain is. */
  readonly base: () => Node | null;
  /** Whether what no layer has is filled too, with zeroes. */
  readonly everything?: boolean;
  /** Cluster size of the overlay in bytes. */
  readonly unit: number;
}

/** Typed internal options of the copy-on-read filter, when a job makes it. */
export interface CopyOnReadInternal {
  readonly copyOnRead: CopyOnRead;
}

type Perform = (request: Request) => Eventually<void>;

export class CopyOnRead {
  readonly #options: CopyOnReadOptions;

  constructor(options: CopyOnReadOptions) {
    this.#options = options;
  }

  /**
   * Fills whatever of the range is unallocated in the overlay and allocated above the base (or
   * everything), in whole clusters; a failure is a value that names its side.
   */
  async fill(offset: number, length: number): Promise<CopyFailure | null> {
    const { unit, overlay, everything = false } = this.#options;
    const end = Math.min(overlay.node.length, Math.ceil((offset + length) / unit) * unit);
    let position = Math.floor(offset / unit) * unit;
    try {
      while (position < end) {
        const chain = { top: overlay.node, base: this.#options.base() };
        const status = await layerStatus(chain, position, end - position);
        if (status.where === 'top' || (status.where === 'below' && !everything)) {
          position += status.length;
          continue;
        }
        const start = Math.floor(position / unit) * unit;
        const whole = Math.ceil((position + status.length) / unit) * unit - start;
        const step = Math.max(COPY_LIMITS.batchMinBytes, unit);
        const size = Math.min(whole, step, end - start);
        const failure = await overlay.node.exclusive(start, size, (perform) =>
          this.#fillTaken({ offset: start, length: size }, perform),
        );
        if (failure !== null) return failure;
        position = start + size;
      }
    } catch (error) {
      return { side: 'source', error: toBlockError(error) };
    }
    return null;
  }

  /** Nobody else writes here now: what is still unallocated stays so until it is filled. */
  async #fillTaken(span: Span, perform: Perform): Promise<CopyFailure | null> {
    const { overlay } = this.#options;
    const end = span.offset + span.length;
    let position = span.offset;
    while (position < end) {
      const asked = overlay.node.blockStatus(position, end - position, false);
      const status = asked instanceof Promise ? await asked : asked;
      if (!status.allocated) {
        const failure = await this.#copyRun({ offset: position, length: status.length }, perform);
        if (failure !== null) return failure;
      }
      // Not to the end of the cluster: its subclusters may differ.
      position += status.length;
    }
    return null;
  }

  async #copyRun(run: Span, perform: Perform): Promise<CopyFailure | null> {
    const { unit } = this.#options;
    const buffer = new Uint8Array(run.length);
    await perform(readRequest(run.offset, buffer));
    for (let at = 0; at < run.length; at += unit) {
      const piece = buffer.subarray(at, Math.min(at + unit, run.length));
      const offset = run.offset + at;
      try {
        await (isZero(piece)
          ? perform(zeroRequest(offset, piece.length, RequestFlag.unchanged))
          : perform(writeRequest(offset, piece, RequestFlag.unchanged)));
      } catch (error) {
        return { side: 'target', error: toBlockError(error) };
      }
    }
    return null;
  }
}
