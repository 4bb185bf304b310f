// SPDX-License-Identifier: Apache-2.0
// The refcounts that an image keeps on disk, as a check reads and mends them.

import { IMAGE_LIMITS } from '../../../../base/index.js';
import type { Eventually } from '../../../../base/index.js';
import { readRequest, writeRequest } from '../../../../block/index.js';
import type { Child } from '../../../../block/index.js';
import { isZero } from '../../../../codec/index.js';
import type { Qcow2Header } from '../header.js';
import { HoleReads } from '../hole-reads.js';

/** One refcount of a block; 64-bit ones beyond 2^53 are not exact. */
export function refcountAt(block: Uint8Array, index: number, refcountBits: number): number {
  if (refcountBits < 8) {
    const bit = index * refcountBits;
    return ((block[bit >>> 3] ?? 0) >>> (bit & 7)) & ((1 << refcountBits) - 1);
  }
  const width = refcountBits / 8;
  let value = 0;
  for (let at = index * width; at < (index + 1) * width; at += 1) {
    value = value * 256 + (block[at] ?? 0);
  }
  return value;
}

/** Refcount blocks as the file has them, a few at a time. */
export class RefcountsOnDisk {
  readonly #file: Pick<Child, 'node'>;
  readonly #header: Qcow2Header;
  readonly #table: DataView;
  /** By their offset in the file, so that one that many entries name is read once. */
  readonly #blocks = new Map<number, Uint8Array>();
  readonly #empty: HoleReads;
  readonly #noRefcounts: Uint8Array;

  constructor(file: Pick<Child, 'node'>, header: Qcow2Header, table: Uint8Array) {
    this.#file = file;
    this.#header = header;
    this.#table = new DataView(table.buffer, table.byteOffset, table.byteLength);
    this.#noRefcounts = new Uint8Array(header.geometry.clusterSize);
    const clusters = header.fields.refcountTableClusters;
    this.#empty = new HoleReads({
      what: `refcount blocks (refcount_table_clusters ${clusters})`,
      file: file.node,
      stored: table.length,
      most: IMAGE_LIMITS.checkEmptyTableBytes,
    });
  }

  get tableEntries(): number {
    return this.#table.byteLength / 8;
  }

  entryHi(index: number): number {
    return this.#table.getUint32(index * 8);
  }

  entryLo(index: number): number {
    return this.#table.getUint32(index * 8 + 4);
  }

  /** Offset of a refcount block without its reserved bits; 0 means all refcounts are zero. */
  blockOffset(index: number): number {
    if (index >= this.tableEntries) return 0;
    return this.entryHi(index) * 0x1_0000_0000 + ((this.entryLo(index) & ~0x1ff) >>> 0);
  }

  /**
   * Null when the block cannot be used: its offset is not aligned. All zero beyond the file.
   * Throws kind `corrupt-image` when too many are read to find nothing in them.
   */
  block(index: number): Eventually<Uint8Array | null> {
    const offset = this.blockOffset(index);
    if (offset === 0) return this.#noRefcounts;
    if (offset % this.#header.geometry.clusterSize !== 0) return null;
    return this.#blocks.get(offset) ?? this.#load(offset);
  }

  /** Writes a block that has changed in its place. */
  async replace(index: number, bytes: Uint8Array): Promise<void> {
    const offset = this.blockOffset(index);
    const before = this.#blocks.get(offset);
    if (before !== undefined && Buffer.compare(before, bytes) === 0) return;
    await this.#file.node.write(writeRequest(offset, bytes));
    this.#blocks.delete(offset);
  }

  async #load(offset: number): Promise<Uint8Array> {
    const bytes = new Uint8Array(this.#header.geometry.clusterSize);
    await readWithin(this.#file, offset, bytes);
    if (isZero(bytes)) this.#empty.add(offset, bytes.length);
    if (this.#blocks.size * bytes.length >= IMAGE_LIMITS.checkBlockBytes) {
      for (const oldest of this.#blocks.keys()) {
        this.#blocks.delete(oldest);
        break;
      }
    }
    this.#blocks.set(offset, bytes);
    return bytes;
  }
}

/** Reads what the file has of the range; the rest of `bytes` becomes zeroes. */
export async function readWithin(
  file: Pick<Child, 'node'>,
  offset: number,
  bytes: Uint8Array,
): Promise<void> {
  const there = Math.max(0, Math.min(bytes.length, file.node.length - offset));
  bytes.fill(0, there);
  if (there > 0) await file.node.read(readRequest(offset, bytes.subarray(0, there)));
}
