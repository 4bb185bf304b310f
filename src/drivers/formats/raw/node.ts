// SPDX-License-Identifier: Apache-2.0
// A node that shows its child's bytes, shifted by `offset` and cut at `size`.
//
// Without a window, requests are handed on as they are. Permissions are those of the parents; a
// window does not share resizing, for it would move.

import {
  BlockError,
  MAX_OFFSET,
  Permission,
  settle,
  type Eventually,
  type PermissionPair,
} from '../../../base/index.js';
import type {
  BlockStatus,
  Child,
  DriverNode,
  Extent,
  Lease,
  NodeLimits,
  Request,
  StatusRuns,
  TargetReservation,
  TruncateOptions,
} from '../../../block/index.js';
import { fillStatusRuns } from '../../../block/index.js';

const SECTOR_BYTES = 512;

export interface RawParts {
  readonly file: Child;
  /** Bytes into the child. */
  readonly offset: number;
  /** Bytes; null: to the end of the child. */
  readonly size: number | null;
  /** Makes the node of another window. */
  readonly reopen: NonNullable<DriverNode['reopen']>;
}

export class RawNode implements DriverNode {
  readonly growsOnWrite: boolean;
  readonly reopen: RawParts['reopen'];
  readonly #file: Child;
  readonly #offset: number;
  readonly #size: number | null;

  constructor(parts: RawParts) {
    this.#file = parts.file;
    this.#offset = parts.offset;
    this.#size = parts.size;
    this.reopen = parts.reopen;
    this.growsOnWrite = parts.size === null;
  }

  get length(): number {
    const rest = Math.max(0, this.#file.node.length - this.#offset);
    // Another, shorter file may have come below the window.
    return Math.min(this.#size ?? Infinity, Math.ceil(rest / SECTOR_BYTES) * SECTOR_BYTES);
  }

  /** The child pads what does not fit it; a window must not pad here, where other bytes lie. */
  get limits(): NodeLimits {
    const { maxTransfer, optimalZeroes, optimalDiscard } = this.#file.node.limits;
    return { requestAlignment: 1, maxTransfer, optimalZeroes, optimalDiscard };
  }

  debugEvent(event: string, canWait: boolean): Eventually<void> {
    return this.#file.node.driverNode.debugEvent?.(event, canWait);
  }

  childPermissions(_child: Child, parents: PermissionPair): PermissionPair {
    const { shared } = parents;
    const windowed = this.#size !== null || this.#offset !== 0;
    return { taken: parents.taken, shared: windowed ? shared & ~Permission.resize : shared };
  }

  read(request: Request): Eventually<void> {
    const held = this.debugEvent('read_aio', true);
    if (held instanceof Promise) return held.then(() => this.#read(request));
    return this.#read(request);
  }

  #read(request: Request): Eventually<void> {
    const shifted = this.#shift(request);
    if (this.#offset % SECTOR_BYTES === 0) return this.#file.node.read(shifted);
    return this.#readUneven(request, shifted);
  }

  /** A window that begins between sectors may end past its child, by the rounding of its size. */
  #readUneven(request: Request, shifted: Request): Eventually<void> {
    const inside = this.#inside(request.offset, request.length);
    request.buffer?.fill(0, inside);
    if (inside === 0) return undefined;
    const buffer = shifted.buffer?.subarray(0, inside) ?? null;
    return this.#file.node.read({ ...shifted, length: inside, buffer });
  }

  write(request: Request): Eventually<void> {
    const held = this.debugEvent('write_aio', true);
    if (held instanceof Promise) return held.then(() => this.#write(request));
    return this.#write(request);
  }

  #write(request: Request): Eventually<void> {
    return this.#file.node.write(this.#shift(request));
  }

  writeZeroes(request: Request): Eventually<void> {
    return this.#file.node.writeZeroes(this.#shift(request));
  }

  discard(request: Request): Eventually<void> {
    return this.#file.node.discard(this.#shift(request));
  }

  blockStatus(offset: number, length: number, exact: boolean): Eventually<BlockStatus> {
    const inside = this.#inside(offset, length);
    if (inside === 0) return zeroStatus(length);
    return this.#file.node.blockStatus(offset + this.#offset, inside, exact);
  }

  statusRuns(offset: number, length: number, runs: StatusRuns): Eventually<void> {
    const inside = this.#inside(offset, length);
    if (inside === 0) {
      runs.clear();
      return runs.addStatus(zeroStatus(length));
    }
    return fillStatusRuns(this.#file.node, { offset: offset + this.#offset, length: inside }, runs);
  }

  truncate(size: number, options: TruncateOptions): Eventually<void> {
    if (this.#size !== null) {
      throw new BlockError('unsupported', 'Cannot resize fixed-size raw disks');
    }
    if (size > MAX_OFFSET - this.#offset) {
      throw new BlockError('invalid-option', 'Disk size too large for the chosen offset');
    }
    return this.#file.node.truncate(size + this.#offset, options);
  }

  planExtents(offset: number, length: number): Eventually<readonly Extent[] | null> {
    const inside = this.#inside(offset, length);
    if (inside < length) return null;
    return this.#file.node.planExtents(offset + this.#offset, length);
  }

  lease(): Lease {
    return this.#file.node.lease();
  }

  reserve(offset: number, length: number): Eventually<TargetReservation | null> {
    const below = this.#file.node.reserve(offset + this.#offset, length);
    if (this.#offset === 0) return below;
    return settle(below, (reservation) => {
      if (reservation === null) return null;
      const pieces = reservation.pieces.map((piece) => ({
        ...piece,
        offset: piece.offset - this.#offset,
      }));
      return {
        pieces,
        link: (outcomes) => reservation.link(outcomes),
        abandon: () => reservation.abandon(),
      };
    });
  }

  close(): Promise<void> {
    return Promise.resolve();
  }

  #shift(request: Request): Request {
    return this.#offset === 0 ? request : { ...request, offset: request.offset + this.#offset };
  }

  /** How much of the range the child has; less only where the size was rounded up. */
  #inside(offset: number, length: number): number {
    return Math.max(0, Math.min(length, this.#file.node.length - this.#offset - offset));
  }
}

function zeroStatus(length: number): BlockStatus {
  return { length, allocated: true, data: false, zero: true, compressed: false };
}
