// SPDX-License-Identifier: Apache-2.0
// Copy on read: fills unallocated clusters of an overlay with what they read as.
//
// A fill reads the view and writes the same bytes into the overlay, so what the node reads as does
// not change. Between its read and its write no other write may come: an observer on the overlay
// makes fills and writes exclude each other on overlapping ranges, whichever way a write takes.

import { COPY_LIMITS, settle, toBlockError } from '../../base/index.js';
import type { Eventually } from '../../base/index.js';
import { isZero } from '../../codec/index.js';
import type { Node } from '../node.js';
import { RequestFlag, writeRequest, zeroRequest } from '../request.js';
import type { Request } from '../request.js';
import { layerStatus } from './chain.js';
import type { CopyFailure, NodeRef } from './copy-engine.js';
import { readView } from './graph-copy.js';
import { RangeLocks } from './range-locks.js';

export interface CopyOnReadOptions {
  readonly overlay: NodeRef;
  /** Layers from here on (inclusive) are not copied; null: the whole chain is. */
  readonly base: () => Node | null;
  /** Cluster size of the overlay in bytes. */
  readonly unit: number;
}

/** Typed internal options of the copy-on-read filter, when a job makes it. */
export interface CopyOnReadInternal {
  /** The job's own; it is attached already. */
  readonly copyOnRead: CopyOnRead;
}

export class CopyOnRead {
  readonly #options: CopyOnReadOptions;
  readonly #fills = new RangeLocks();
  readonly #writes = new RangeLocks();

  constructor(options: CopyOnReadOptions) {
    this.#options = options;
  }

  /** Must be attached to the overlay's node before the first fill; the result takes it off. */
  attach(node: Node): () => void {
    const running = new Map<Request, () => void>();
    return node.addObserver({
      beforeWrite: (offset, length, request) => {
        if ((request.flags & RequestFlag.unchanged) !== 0) return undefined;
        return settle(this.#waitForFills(offset, length), () => {
          running.set(request, this.#writes.takeShared(offset, length));
        });
      },
      afterWrite(_offset, _length, request) {
        running.get(request)?.();
        running.delete(request);
      },
    });
  }

  /** Fills the range; a failure is a value that names its side. */
  async fill(offset: number, length: number): Promise<CopyFailure | null> {
    try {
      await this.#fill(offset, length);
      return null;
    } catch (error) {
      return error instanceof FillWriteError
        ? { side: 'target', error: toBlockError(error.cause) }
        : { side: 'source', error: toBlockError(error) };
    }
  }

  /** Whatever of the range is unallocated above the base; whole clusters. */
  async #fill(offset: number, length: number): Promise<void> {
    const { unit, overlay } = this.#options;
    const end = Math.min(overlay.node.length, Math.ceil((offset + length) / unit) * unit);
    let position = Math.floor(offset / unit) * unit;
    while (position < end) {
      const chain = { top: overlay.node, base: this.#options.base() };
      const status = await layerStatus(chain, position, end - position);
      if (status.where !== 'middle') {
        position += status.length;
        continue;
      }
      const start = Math.floor(position / unit) * unit;
      const whole = Math.ceil((position + status.length) / unit) * unit - start;
      const step = Math.max(COPY_LIMITS.batchMinBytes, unit);
      const size = Math.min(whole, step, end - start);
      await this.#fillClusters(start, size);
      position = start + size;
    }
  }

  #waitForFills(offset: number, length: number): Eventually<void> {
    return this.#fills.overlaps(offset, length) ? this.#waitLonger(offset, length) : undefined;
  }

  async #waitLonger(offset: number, length: number): Promise<void> {
    for (;;) {
      const busy = this.#fills.wait(offset, length);
      if (busy === undefined) return;
      await busy;
    }
  }

  async #fillClusters(offset: number, length: number): Promise<void> {
    for (;;) {
      const busy = this.#fills.wait(offset, length) ?? this.#writes.wait(offset, length);
      if (busy === undefined) break;
      await busy;
    }
    const release = this.#fills.take(offset, length);
    try {
      await this.#fillTaken(offset, length);
    } finally {
      release();
    }
  }

  /** Nobody writes here now: what is still unallocated stays so until it is filled. */
  async #fillTaken(offset: number, length: number): Promise<void> {
    const { unit, overlay } = this.#options;
    const end = offset + length;
    let position = offset;
    while (position < end) {
      const asked = overlay.node.blockStatus(position, end - position, false);
      const status = asked instanceof Promise ? await asked : asked;
      if (!status.allocated) await this.#copyRun(overlay.node, position, status.length);
      // Allocation changes at cluster boundaries only.
      position = Math.ceil((position + status.length) / unit) * unit;
    }
  }

  async #copyRun(node: Node, offset: number, length: number): Promise<void> {
    const { unit } = this.#options;
    const buffer = new Uint8Array(length);
    const read = readView(node, offset, buffer);
    if (read instanceof Promise) await read;
    for (let at = 0; at < length; at += unit) {
      const piece = buffer.subarray(at, Math.min(at + unit, length));
      try {
        await (isZero(piece)
          ? node.writeZeroes(zeroRequest(offset + at, piece.length, RequestFlag.unchanged))
          : node.write(writeRequest(offset + at, piece, RequestFlag.unchanged)));
      } catch (error) {
        throw new FillWriteError(error);
      }
    }
  }
}

/** Tells a failed write from a failed read; never leaves this file but as a value. */
class FillWriteError extends Error {
  constructor(override readonly cause: unknown) {
    super('fill failed');
  }
}
