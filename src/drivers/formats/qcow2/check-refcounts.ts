// SPDX-License-Identifier: Apache-2.0
// Two sides of a check: references counted by sweeping the tables, and refcounts read from disk.
//
// Counted references live in pages of 65,536 clusters that exist only where something refers to a
// cluster, one byte each until a count passes 255; so memory follows the clusters in use and not
// the length of a sparse file.

import { readRequest } from '../../../block/index.js';
import type { Child } from '../../../block/index.js';
import type { Qcow2Header } from './header.js';

const PAGE_BITS = 16;
const PAGE_CLUSTERS = 1 << PAGE_BITS;

/** How often each host cluster is referred to. */
export class ReferenceCounts {
  readonly #pages = new Map<number, Uint8Array | Uint32Array>();
  /** Page numbers in order; made when counting is over. */
  #sorted: readonly number[] | null = null;

  add(cluster: number): void {
    const number = Math.floor(cluster / PAGE_CLUSTERS);
    const index = cluster % PAGE_CLUSTERS;
    let page = this.#pages.get(number);
    if (page === undefined) {
      page = new Uint8Array(PAGE_CLUSTERS);
      this.#pages.set(number, page);
      this.#sorted = null;
    }
    const count = (page[index] ?? 0) + 1;
    if (count > 0xff && page instanceof Uint8Array) {
      page = Uint32Array.from(page);
      this.#pages.set(number, page);
    }
    page[index] = count;
  }

  get(cluster: number): number {
    const page = this.#pages.get(Math.floor(cluster / PAGE_CLUSTERS));
    return page === undefined ? 0 : (page[cluster % PAGE_CLUSTERS] ?? 0);
  }

  /** The first cluster from `from` on that may have a count; Infinity when there is none. */
  nextCandidate(from: number): number {
    const first = Math.floor(from / PAGE_CLUSTERS);
    if (this.#pages.has(first)) return from;
    this.#sorted ??= [...this.#pages.keys()].toSorted((a, b) => a - b);
    let low = 0;
    let high = this.#sorted.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#sorted[middle] ?? 0) > first) high = middle;
      else low = middle + 1;
    }
    return (this.#sorted[low] ?? Infinity) * PAGE_CLUSTERS;
  }
}

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

const CACHED_BLOCKS = 32;

/** Refcount blocks as the file has them, a few at a time. */
export class RefcountsOnDisk {
  readonly #file: Pick<Child, 'node'>;
  readonly #header: Qcow2Header;
  readonly #table: DataView;
  readonly #blocks = new Map<number, Uint8Array>();

  constructor(file: Pick<Child, 'node'>, header: Qcow2Header, table: Uint8Array) {
    this.#file = file;
    this.#header = header;
    this.#table = new DataView(table.buffer, table.byteOffset, table.byteLength);
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

  /** Null when the block cannot be used: its offset is not aligned. All zero beyond the file. */
  async block(index: number): Promise<Uint8Array | null> {
    const { clusterSize } = this.#header.geometry;
    const offset = this.blockOffset(index);
    if (offset % clusterSize !== 0) return null;
    const cached = this.#blocks.get(index);
    if (cached !== undefined) return cached;
    const bytes = new Uint8Array(clusterSize);
    if (offset !== 0) await readWithin(this.#file, offset, bytes);
    if (this.#blocks.size >= CACHED_BLOCKS) {
      for (const oldest of this.#blocks.keys()) {
        this.#blocks.delete(oldest);
        break;
      }
    }
    this.#blocks.set(index, bytes);
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
