// SPDX-License-Identifier: Apache-2.0
// What a guest range is made of, from one L2 table: pure lookup, no I/O.
//
// A RunPlan is a scratch object that its owner fills again and again; its members hold until the
// next find() and are read before anything is awaited. A run never leaves the L2 table it was
// found in, and a compressed run never leaves its cluster. With extended L2 entries runs are made
// of subclusters: they begin and end inside clusters.

import { MAX_OFFSET, type BlockError } from '../../../../base/index.js';
import {
  ALL_SUBCLUSTERS,
  compressedHostOffset,
  compressedLength,
  EntryKind,
  entryHostOffset,
  entryIn,
  hasReservedL2Bits,
  isCompressed,
  isContradiction,
  isCopied,
  isHosted,
} from '../entries.js';
import type { L2Entry } from '../entries.js';
import { L2_ENTRY, SUBCLUSTERS } from '../layout.js';
import { hex, shownHex } from '../metadata/index.js';
import type { Qcow2Image, Table } from '../metadata/index.js';
import { maskOfKind, runOfMask, subclusterKind } from './subclusters.js';

/** Bytes of a standard entry. */
const STANDARD = 8;

/** Entries compared at once. */
const STRIDE = 32;

/** Whether STRIDE entries from `index` on are the same as the one before. */
function areSame(bytes: Uint8Array, index: number, entryBytes: number): boolean {
  const start = index * entryBytes;
  const end = start + STRIDE * entryBytes;
  if (end > bytes.length) return false;
  const before = bytes.subarray(start - entryBytes, end - entryBytes);
  return Buffer.compare(before, bytes.subarray(start, end)) === 0;
}

export class RunPlan {
  kind: EntryKind = EntryKind.unallocated;
  /** Guest bytes from the offset asked for. */
  length = 0;
  guestOffset = 0;
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
  readonly #extended: boolean;
  readonly #writes: boolean;

  /** `writes`: what it finds is going to be written. */
  constructor(image: Qcow2Image, writes = false) {
    this.#image = image;
    this.#writes = writes;
    this.#extended = image.geometry.subclustersPerCluster > 1;
  }

  /**
   * Finds the longest run of one kind at `guestOffset`, at most `length` bytes. A null table is an
   * L1 entry without one. Throws kind `corrupt-image` on an entry that cannot be.
   */
  find(table: Table | null, guestOffset: number, length: number): void {
    const { geometry, clusterSize } = this.#image;
    this.guestOffset = guestOffset;
    const inTable = guestOffset % geometry.l2Coverage;
    const most = Math.min(length, geometry.l2Coverage - inTable);
    if (table === null) {
      this.#set(EntryKind.unallocated, 0, 0);
      this.length = most;
      return;
    }
    if (this.#extended) {
      this.#findSubclusters(table, guestOffset, most);
      return;
    }
    const inCluster = inTable % clusterSize;
    const first = (inTable - inCluster) / clusterSize;
    this.hi = table.view.getUint32(first * STANDARD);
    this.lo = table.view.getUint32(first * STANDARD + 4);
    this.#classify(guestOffset);
    let run = clusterSize - inCluster;
    if (this.kind === EntryKind.compressed) {
      this.length = Math.min(run, most);
      return;
    }
    let index = first + 1;
    const stored = this.#isStored();
    if (!stored) {
      for (; run < most && areSame(table.bytes, index, STANDARD); index += STRIDE) {
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
    const { kind } = this;
    return (
      kind === EntryKind.data || kind === EntryKind.zeroAllocated || kind === EntryKind.hosted
    );
  }

  #findSubclusters({ view, bytes }: Table, guestOffset: number, most: number): void {
    const { geometry, clusterSize } = this.#image;
    const inTable = guestOffset % geometry.l2Coverage;
    const inCluster = inTable % clusterSize;
    let index = (inTable - inCluster) / clusterSize;
    const entry = entryIn(view, index * geometry.l2EntryBytes, geometry);
    const subcluster = Math.floor(inCluster / geometry.subclusterSize);
    this.hi = entry.hi;
    this.lo = entry.lo;
    this.#classifySubcluster(entry, subcluster, guestOffset);
    if (this.kind === EntryKind.compressed) {
      this.length = Math.min(clusterSize - inCluster, most);
      return;
    }
    const mask = maskOfKind(entry, this.kind);
    let end = subcluster + runOfMask(mask, subcluster);
    let run = end * geometry.subclusterSize - inCluster;
    index += 1;
    const stored = this.#isStored();
    if (!stored && runOfMask(mask, 0) === SUBCLUSTERS) {
      for (; run < most && areSame(bytes, index, geometry.l2EntryBytes); index += STRIDE) {
        run += STRIDE * clusterSize;
      }
    }
    for (; end === SUBCLUSTERS && run < most; index += 1) {
      if (this.#isNextData(view, index * geometry.l2EntryBytes, run + inCluster)) {
        run += clusterSize;
        continue;
      }
      const next = entryIn(view, index * geometry.l2EntryBytes, geometry);
      if (!this.#isNext(next, run + inCluster)) break;
      end = runOfMask(maskOfKind(next, this.kind), 0);
      run += end * geometry.subclusterSize;
    }
    this.length = Math.min(run, most);
    if (stored) this.hostOffset += inCluster;
  }

  #classifySubcluster(entry: L2Entry, subcluster: number, guestOffset: number): void {
    const image = this.#image;
    const { hi, lo } = entry;
    const kind = subclusterKind(entry, subcluster);
    if (kind === EntryKind.compressed) {
      if (image.hasDataFile) throw this.#compressedError(guestOffset);
      const { clusterBits } = image.geometry;
      this.#set(kind, compressedHostOffset(hi, lo, clusterBits), 0);
      this.compressedLength = compressedLength(hi, lo, clusterBits);
      return;
    }
    const offset = entryHostOffset(hi, lo);
    if (
      isContradiction(entry) ||
      hasReservedL2Bits(hi, lo, image.version) ||
      offset % image.clusterSize !== 0 ||
      offset > MAX_OFFSET
    ) {
      const bitmap = hex(entry.zeroes, entry.allocated);
      const finding =
        `L2 entry ${hex(hi, lo)} with subcluster bitmap ${bitmap} for guest offset ` +
        `${guestOffset} is invalid`;
      throw this.#entryError(finding, guestOffset, isContradiction(entry));
    }
    this.#set(kind, offset, hi);
    this.#requirePlace(guestOffset);
  }

  /** All of the cluster is data right behind the run: the usual case, without an object. */
  #isNextData(view: DataView, at: number, distance: number): boolean {
    return (
      this.kind === EntryKind.data &&
      view.getUint32(at) === this.hi &&
      view.getUint32(at + 4) === this.lo + distance &&
      view.getUint32(at + 8) === 0 &&
      view.getUint32(at + 12) === ALL_SUBCLUSTERS
    );
  }

  /** The next cluster can carry the run on; `distance` is its distance from the first one. */
  #isNext(entry: L2Entry, distance: number): boolean {
    const { hi, lo } = entry;
    if (isCompressed(hi) || isContradiction(entry)) return false;
    if (hasReservedL2Bits(hi, lo, this.#image.version)) return false;
    const offset = entryHostOffset(hi, lo);
    if (!this.#isStored()) return !isHosted(entry);
    return offset === this.hostOffset + distance && isCopied(hi) === this.copied;
  }

  #classify(guestOffset: number): void {
    const image = this.#image;
    const { hi, lo } = this;
    const kind = image.entryKind(hi, lo);
    if (kind === EntryKind.compressed) {
      if (image.hasDataFile) throw this.#compressedError(guestOffset);
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
      const finding = `L2 entry ${hex(hi, lo)} for guest offset ${guestOffset} is invalid`;
      throw this.#entryError(finding, guestOffset, false);
    }
    this.#set(kind, offset, hi);
    this.#requirePlace(guestOffset);
  }

  /** In a data file every cluster is where the guest has it. */
  #requirePlace(guestOffset: number): void {
    const { hasDataFile, clusterSize } = this.#image;
    if (!hasDataFile || !this.#isStored()) return;
    if (this.hostOffset === guestOffset - (guestOffset % clusterSize)) return;
    const own = shownHex(guestOffset - (guestOffset % clusterSize));
    const message =
      `External data file host cluster offset ${shownHex(this.hostOffset)} does not match guest ` +
      `cluster offset: ${own}, L2 index: ${shownHex(this.#placeOf(guestOffset).index)})`;
    throw this.#misplaced('is not where the guest has it', guestOffset, message);
  }

  #misplaced(finding: string, guestOffset: number, message: string): BlockError {
    const entry = `L2 entry ${hex(this.hi, this.lo)} for guest offset ${guestOffset}`;
    return this.#image.entryError(`${entry} in an image with a data file ${finding}`, message);
  }

  #compressedError(guestOffset: number): BlockError {
    const message =
      'Compressed cluster entry found in image with external data file ' +
      this.#placeOf(guestOffset).text;
    return this.#misplaced('is compressed', guestOffset, message);
  }

  /** Of an entry of any other kind that cannot be. */
  #entryError(finding: string, guestOffset: number, isContradictory: boolean): BlockError {
    const image = this.#image;
    const { text } = this.#placeOf(guestOffset);
    const offset = entryHostOffset(this.hi, this.lo);
    if (offset % image.clusterSize !== 0 && !isContradictory) {
      const kind = (this.lo & L2_ENTRY.zero.lo) === 0 ? 'Data' : 'Preallocated zero';
      const message = this.#writes
        ? `${kind} cluster offset ${shownHex(offset)} unaligned (guest offset: ` +
          `${shownHex(guestOffset)})`
        : `Cluster allocation offset ${shownHex(offset)} unaligned ${text}`;
      return image.entryError(finding, message);
    }
    // No file reaches so far: to read there finds its end, to write there is refused.
    const errno = this.#writes && offset > Number.MAX_SAFE_INTEGER ? 'EFBIG' : 'EIO';
    // Reserved bits are no matter of the reference, which has no words for them.
    if (!isContradictory) return image.corruptError(finding, errno);
    const space = this.#writes ? ' ' : '  ';
    return image.entryError(finding, `Invalid cluster entry found${space}${text}`);
  }

  /** Where the entry of a guest cluster lies. */
  #placeOf(guestOffset: number): { readonly index: number; readonly text: string } {
    const { geometry, clusterSize } = this.#image;
    const table = Math.floor(guestOffset / geometry.l2Coverage);
    const index = Math.floor((guestOffset - table * geometry.l2Coverage) / clusterSize);
    const offset = shownHex(this.#image.l2Offset(table));
    return { index, text: `(L2 offset: ${offset}, L2 index: ${shownHex(index)})` };
  }

  #set(kind: EntryKind, hostOffset: number, hi: number): void {
    this.kind = kind;
    this.hostOffset = hostOffset;
    this.copied = isCopied(hi);
    this.compressedLength = 0;
  }

  /** The next entry carries the run on; `distance` is its host distance from the first cluster. */
  #continues(view: DataView, index: number, distance: number): boolean {
    const hi = view.getUint32(index * STANDARD);
    const lo = view.getUint32(index * STANDARD + 4);
    // Mostly the entry of the next host cluster, with the same bits as the first.
    const stored = this.#isStored();
    if (stored && hi === this.hi && lo === this.lo + distance) return true;
    if (hasReservedL2Bits(hi, lo, this.#image.version)) return false;
    if (this.#image.entryKind(hi, lo) !== this.kind) return false;
    if (!stored) return true;
    return entryHostOffset(hi, lo) === this.hostOffset + distance && isCopied(hi) === this.copied;
  }
}
