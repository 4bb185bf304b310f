// SPDX-License-Identifier: Apache-2.0
// Planned extents: what a lane may read or fill directly on a host file, without the graph.

import type { Eventually } from '../base/index.js';
import type { ClusterCodec } from '../codec/index.js';
import type { CipherKey } from '../crypto/index.js';
import type { HostFile } from '../host/index.js';

/** How the bytes of a host range are encrypted. */
export interface RangeCipher {
  /** Its key lies in shared memory, which its node wipes when it is closed. */
  readonly key: CipherKey;
  /** What the range's first byte is to the cipher: its sectors count from byte 0. */
  readonly offset: number;
}

/** A part of a node's range; the parts of one plan follow each other without gaps. */
export type Extent =
  | {
      readonly kind: 'data';
      readonly length: number;
      readonly file: HostFile;
      readonly hostOffset: number;
      /** Absent: the bytes are stored as they are. */
      readonly cipher?: RangeCipher;
    }
  | { readonly kind: 'zero'; readonly length: number }
  /** Nothing is stored, and zeroes are no zeroes once they are decrypted. */
  | { readonly kind: 'unwritten'; readonly length: number; readonly cipher: RangeCipher }
  /** Not decided by this layer: ask the backing file, or zeroes when there is none. */
  | { readonly kind: 'backing'; readonly length: number }
  | {
      readonly kind: 'compressed';
      readonly codec: ClusterCodec;
      readonly file: HostFile;
      readonly hostOffset: number;
      /** Bytes to read; the stream may end before. */
      readonly compressedLength: number;
      /** Size of the whole inflated cluster, and where in it this extent begins. */
      readonly inflatedLength: number;
      readonly skip: number;
      readonly length: number;
    };

/** Keeps freed clusters from being reused or punched until it is released. Release exactly once. */
export interface Lease {
  release(): void;
}

/** Part of a reservation: a guest range and the host range a lane fills for it. */
export interface ReservedPiece {
  /** Guest bytes. */
  readonly offset: number;
  readonly length: number;
  readonly file: HostFile;
  readonly hostOffset: number;
  /**
   * Space is new: `zero` and `dropped` give it back; otherwise the range is overwritten in place.
   */
  readonly fresh: boolean;
  /** The bytes have to be stored encrypted so; whole sectors. */
  readonly cipher?: RangeCipher;
  /** Zeroes are stored like anything else: lanes look for none, and leave none out. */
  readonly storesZeroes?: boolean;
}

export type PieceOutcome =
  /** All bytes of the piece are in the host range. */
  | 'written'
  /** The piece reads as zeroes; nothing was written. */
  | 'zero'
  /** Failed or not wanted: as if never reserved. */
  | 'dropped'
  /** Fresh pieces only: written, but for ranges that read as zeroes and were left out. */
  | WrittenInPart;

export interface WrittenInPart {
  /** Offset in the piece and length, in turn, ascending. */
  readonly zeroRanges: readonly number[];
  /** What is not allocated may stay so: it is known to read as zeroes from now on as well. */
  readonly holes?: boolean;
}

/**
 * Host space set aside for a guest range. Nothing is visible before link(); link() is
 * compare-and-set per cluster: where the guest wrote meanwhile, the guest's data stays.
 */
export interface TargetReservation {
  /** Covers the range asked for, in order; whole clusters but for the end of the node. */
  readonly pieces: readonly ReservedPiece[];
  /** One outcome for each piece. */
  link(outcomes: readonly PieceOutcome[]): Eventually<void>;
  /** Gives everything back; the same as linking with every piece `dropped`. */
  abandon(): void;
}

/**
 * What is stored encrypted in these extents, from `start` on. Null where a part does not hold whole
 * sectors, or is encrypted once more.
 */
export function encryptedExtents(below: readonly Extent[], start: RangeCipher): Extent[] | null {
  const { key } = start;
  const extents: Extent[] = [];
  let { offset } = start;
  for (const extent of below) {
    const { kind, length } = extent;
    const cipher = { key, offset };
    if (length % key.sectorBytes !== 0) return null;
    if (kind === 'zero') extents.push({ kind: 'unwritten', length, cipher });
    else if (kind === 'data' && extent.cipher === undefined) extents.push({ ...extent, cipher });
    else return null;
    offset += length;
  }
  return extents;
}
