// SPDX-License-Identifier: Apache-2.0
// What a guest range is made of, from one L2 table: pure lookup, no I/O.
//
// A RunPlan is a scratch object that its owner fills again and again; its members hold until the
// next find() and are read before anything is awaited. A run never leaves the L2 table it was
// found in, and a compressed run never leaves its cluster.

import { MAX_OFFSET, type BlockError } from '../../../../base/index.js';
import {
  compressedHostOffset,
  compressedLength,
  EntryKind,
  entryHostOffset,
  hasReservedL2Bits,
  isCopied,
} from '../entries.js';
import { hex } from '../metadata/index.js';
import type { Qcow2Image, Table } from '../metadata/index.js';

/** Entries compared at once. */
const STRIDE = 32;

/** Whether STRIDE entries of 8 bytes from `index` on are the same as the one before. */
function areSame(bytes: Uint8Array, index: number): boolean {
  const start = index * 8;
  const end = start + STRIDE * 8;
  if (end > bytes.length) return false;
  const before = bytes.subarray(start - 8, end - 8);
  return Buffer.compare(before, bytes.subarray(start, end)) === 0;
}

export class RunPlan {
  kind: EntryKind = EntryKind.unallocated;
  /** Guest bytes from the offset asked for. */
  length = 0;
  /** Host byte behind the offset asked for (data, zeroAllocated), or the compressed bytes. */
  hostOffset = 0;
  /** Bytes to read at hostOffset; compressed only. */
  compressedLength = 0;
  /** Every cluster of the run has refcount one, by its entry. */
  copied = false;
  /** First entry of the run. */
  hi = 0;
  lo = 0;
  readonly #image: Qcow2Image;

  constructor(image: Qcow2Image) {
    this.#image = image;
  }

  /**
   * Finds the longest run of one kind at `guestOffset`, at most `length` bytes. A null table is an
   * L1 entry without one. Throws kind `corrupt-image` on an entry that cannot be.
   */
  find(table: Table | null, guestOffset: number, length: number): void {
    const { geometry, clusterSize } = this.#image;
    const inTable = guestOffset % geometry.l2Coverage;
    const most = Math.min(length, geometry.l2Coverage - inTable);
    if (table === null) {
      this.#set(EntryKind.unallocated, 0, 0);
      this.length = most;
      return;
    }
    const inCluster = inTable % clusterSize;
    const first = (inTable - inCluster) / clusterSize;
    const at = first * geometry.l2EntryBytes;
    this.hi = table.view.getUint32(at);
    this.lo = table.view.getUint32(at + 4);
    this.#classify(guestOffset);
    let run = clusterSize - inCluster;
    if (this.kind === EntryKind.compressed) {
      this.length = Math.min(run, most);
      return;
    }
    let index = first + 1;
    const stored = this.#isStored();
    if (!stored && geometry.l2EntryBytes === 8) {
      for (; run < most && areSame(table.bytes, index); index += STRIDE) {
        run += STRIDE * clusterSize;
      }
    }
    for (; run < most; index += 1) {
      if (!this.#continues(table.view, index, run + inCluster)) break;
      run += clusterSize;
    }
    this.length = Math.min(run, most);
    if (stored) this.hostOffset += inCluster;
  }

  /** The run has a place of its own; in a data file that may begin at 0. */
  #isStored(): boolean {
    return this.kind === EntryKind.data || this.kind === EntryKind.zeroAllocated;
  }

  #classify(guestOffset: number): void {
    const image = this.#image;
    const { hi, lo } = this;
    const kind = image.entryKind(hi, lo);
    if (kind === EntryKind.compressed) {
      if (image.hasDataFile) throw this.#misplaced('is compressed', guestOffset);
      const { clusterBits } = image.geometry;
      this.#set(kind, compressedHostOffset(hi, lo, clusterBits), 0);
      this.compressedLength = compressedLength(hi, lo, clusterBits);
      return;
    }
    const offset = entryHostOffset(hi, lo);
    if (
      kind === EntryKind.invalid ||
      hasReservedL2Bits(hi, lo, image.version) ||
      offset % image.clusterSize !== 0 ||
      offset > MAX_OFFSET
    ) {
      throw image.corruptError(
        `L2 entry ${hex(hi, lo)} for guest offset ${guestOffset} is invalid`,
      );
    }
    this.#set(kind, offset, hi);
    const place = guestOffset - (guestOffset % image.clusterSize);
    if (image.hasDataFile && this.#isStored() && offset !== place) {
      throw this.#misplaced('is not where the guest has it', guestOffset);
    }
  }

  #misplaced(finding: string, guestOffset: number): BlockError {
    const entry = `L2 entry ${hex(this.hi, this.lo)} for guest offset ${guestOffset}`;
    return this.#image.corruptError(`${entry} in an image with a data file ${finding}`);
  }

  #set(kind: EntryKind, hostOffset: number, hi: number): void {
    this.kind = kind;
    this.hostOffset = hostOffset;
    this.copied = isCopied(hi);
    this.compressedLength = 0;
  }

  /** The next entry carries the run on; `distance` is its host distance from the first cluster. */
  #continues(view: DataView, index: number, distance: number): boolean {
    const { l2EntryBytes } = this.#image.geometry;
    const at = index * l2EntryBytes;
    const hi = view.getUint32(at);
    const lo = view.getUint32(at + 4);
    // Mostly the entry of the next host cluster, with the same bits as the first.
    const stored = this.#isStored();
    const isNext = stored && hi === this.hi && lo === this.lo + distance;
    if (isNext && l2EntryBytes === 8) return true;
    if (hasReservedL2Bits(hi, lo, this.#image.version)) return false;
    if (this.#image.entryKind(hi, lo) !== this.kind) return false;
    if (!stored) return true;
    return entryHostOffset(hi, lo) === this.hostOffset + distance && isCopied(hi) === this.copied;
  }
}
