// SPDX-License-Identifier: Apache-2.0
// The refcounts as they are going to be, in memory, while the image goes on with its present ones.
//
// Blocks are copied from the image when they are first needed. What is taken for new structures is
// free in the present refcounts as well, so that writing to it changes nothing that anyone reads.
// Every block that changed gets a new place in the end, and so does the refcount table; the places
// of the old ones lose their reference, which may change further blocks: settle() goes on until
// nothing is left to place.

import { BlockError, IMAGE_LIMITS, QCOW2_LIMITS } from '../../../../base/index.js';
import type { Eventually } from '../../../../base/index.js';
import { readRefcount, viewOf, writeRefcount } from '../metadata/index.js';
import type { MetadataStore, Table } from '../metadata/index.js';
import type { NewBytes } from './new-bytes.js';

interface NextBlock {
  readonly index: number;
  readonly bytes: Uint8Array;
  readonly view: DataView;
  /** Where the present block lies; 0 when there is none. */
  readonly oldOffset: number;
  /** One bit for each cluster that is in use now or taken since. */
  readonly taken: Uint8Array;
  changed: boolean;
  /** Where the next block will lie; 0 as long as it has no place. */
  offset: number;
}

interface PlacedTable {
  readonly offset: number;
  readonly clusters: number;
}

export interface NextTable {
  readonly offset: number;
  readonly bytes: Uint8Array;
}

export class NextRefcounts {
  readonly #store: MetadataStore;
  /** By their number; most are missing. */
  readonly #byIndex: NextBlock[] = [];
  readonly #blocks: NextBlock[] = [];
  readonly #oldOffsets = new Set<number>();
  readonly #entries: number;
  readonly #order: number;
  readonly #max: number;
  /** No cluster below this one can be taken. */
  #hint = 0;

  constructor(store: MetadataStore) {
    const { geometry } = store.image;
    this.#store = store;
    this.#entries = geometry.refcountBlockEntries;
    this.#order = geometry.refcountOrder;
    this.#max = geometry.maxRefcount;
  }

  /** Null: the block that counts the cluster must be loaded first. */
  get(cluster: number): number | null {
    const block = this.#present(cluster);
    return block && readRefcount(block.view, this.#order, cluster % this.#entries);
  }

  /**
   * Adds to a cluster's references; false: load() first. Throws where the width has no room for
   * them (kind `invalid-option`) or the image counts fewer than it has.
   */
  add(cluster: number, change: number): boolean {
    const block = this.#byIndex[Math.floor(cluster / this.#entries)];
    if (block === undefined) return false;
    const index = cluster % this.#entries;
    const value = readRefcount(block.view, this.#order, index);
    const next = value + change;
    if (value === 0 || next < 0) {
      const { image } = this.#store;
      const place = cluster * image.clusterSize;
      throw image.corruptError(`cluster at offset ${place} is in use and has refcount ${value}`);
    }
    if (next > this.#max) throw this.#tooMany(cluster);
    writeRefcount(block.view, { order: this.#order, index }, next);
    block.changed = true;
    return true;
  }

  /** The block that counts `cluster` is there afterwards. */
  async load(cluster: number): Promise<void> {
    await this.#blockAt(Math.floor(cluster / this.#entries));
  }

  /** add() that waits. */
  async change(cluster: number, change: number): Promise<void> {
    if (this.add(cluster, change)) return;
    await this.load(cluster);
    this.add(cluster, change);
  }

  async changeRun(offset: number, length: number, change: number): Promise<void> {
    const { clusterSize } = this.#store.image;
    const first = Math.floor(offset / clusterSize);
    const end = Math.ceil((offset + length) / clusterSize);
    for (let cluster = first; cluster < end; cluster += 1) await this.change(cluster, change);
  }

  /** Contiguous clusters with `references` each; gives their offset in bytes. */
  async take(count: number, references = 1): Promise<number> {
    if (references > this.#max) throw this.#tooMany(this.#hint);
    let start = this.#hint;
    for (let cluster = start; cluster < start + count; cluster += 1) {
      const block = this.#present(cluster) ?? (await this.#blockAt(this.#indexOf(cluster)));
      const index = cluster % this.#entries;
      const taken = block.taken[index >>> 3] ?? 0;
      if ((index & 7) === 0 && taken === 0xff) cluster += 7;
      if (((taken >>> (index & 7)) & 1) === 1) start = cluster + 1;
    }
    if (count === 1) this.#hint = start + 1;
    this.#checkPlace(start, count);
    for (let cluster = start; cluster < start + count; cluster += 1) {
      this.#claim(cluster, references);
    }
    return start * this.#store.image.clusterSize;
  }

  /** Gives changed blocks and the table their places; nothing changes any more afterwards. */
  async settle(): Promise<NextTable> {
    const { image } = this.#store;
    const { clusterSize } = image;
    let table: PlacedTable | null = null;
    await this.changeRun(image.refcountTableOffset, image.refcountTable.length, -1);
    for (;;) {
      await this.#placeBlocks();
      const clusters = this.#tableClusters();
      if (table !== null && table.clusters >= clusters) return this.#tableBytes(table);
      if (table !== null) await this.changeRun(table.offset, table.clusters * clusterSize, -1);
      table = { offset: await this.take(clusters), clusters };
    }
  }

  /** Writes the changed blocks; the table that names them is the caller's. */
  async write(output: NewBytes): Promise<void> {
    const changed = this.#changed().toSorted((left, right) => left.offset - right.offset);
    for (const { offset, bytes } of changed) await output.add(offset, bytes);
  }

  /** Runs of clusters, in order, that were in use and are not any more, in bytes. */
  *freed(): Generator<{ readonly offset: number; readonly length: number }> {
    const { clusterSize } = this.#store.image;
    for (const block of this.#changed()) {
      const first = block.index * this.#entries;
      let start = -1;
      for (let index = 0; index <= this.#entries; index += 1) {
        const isFreed = index < this.#entries && this.#isFreed(block, index);
        if (isFreed && start < 0) start = index;
        if (isFreed || start < 0) continue;
        const length = (index - start) * clusterSize;
        yield { offset: (first + start) * clusterSize, length };
        start = -1;
      }
    }
  }

  #isFreed({ taken, view }: NextBlock, index: number): boolean {
    if ((((taken[index >>> 3] ?? 0) >>> (index & 7)) & 1) === 0) return false;
    return readRefcount(view, this.#order, index) === 0;
  }

  #changed(): NextBlock[] {
    return this.#blocks.filter(({ changed }) => changed);
  }

  async #placeBlocks(): Promise<void> {
    const { clusterSize } = this.#store.image;
    for (;;) {
      const homeless = this.#changed().filter(({ offset }) => offset === 0);
      if (homeless.length === 0) return;
      for (const block of homeless) {
        block.offset = await this.take(1);
        if (block.oldOffset !== 0) await this.change(block.oldOffset / clusterSize, -1);
      }
    }
  }

  #tableClusters(): number {
    const { image } = this.#store;
    let entries = image.refcountTable.length / 8;
    for (const { index } of this.#changed()) entries = Math.max(entries, index + 1);
    const clusters = Math.ceil((entries * 8) / image.clusterSize);
    if (clusters * image.clusterSize > IMAGE_LIMITS.qcow2RefcountTableBytes) {
      throw new BlockError('too-large', `${image.label}: refcount table would exceed 8 MiB`);
    }
    return clusters;
  }

  #tableBytes({ offset, clusters }: PlacedTable): NextTable {
    const { image } = this.#store;
    const bytes = new Uint8Array(clusters * image.clusterSize);
    bytes.set(image.refcountTable);
    const view = viewOf(bytes);
    for (const block of this.#changed()) {
      view.setUint32(block.index * 8, Math.floor(block.offset / 0x1_0000_0000));
      view.setUint32(block.index * 8 + 4, block.offset % 0x1_0000_0000 >>> 0);
    }
    return { offset, bytes };
  }

  #claim(cluster: number, references: number): void {
    const block = this.#present(cluster);
    if (block === null) return;
    const index = cluster % this.#entries;
    block.taken[index >>> 3] = (block.taken[index >>> 3] ?? 0) | (1 << (index & 7));
    writeRefcount(block.view, { order: this.#order, index }, references);
    block.changed = true;
  }

  #checkPlace(start: number, count: number): void {
    const { image } = this.#store;
    const { clusterSize } = image;
    const place = { offset: start * clusterSize, length: count * clusterSize };
    const hit = image.overlaps.hit(place.offset, place.length);
    if (hit !== null) throw image.overlapError(hit, 'free cluster', place);
  }

  #indexOf(cluster: number): number {
    return Math.floor(cluster / this.#entries);
  }

  #present(cluster: number): NextBlock | null {
    const index = Math.floor(cluster / this.#entries);
    return this.#byIndex[index] ?? null;
  }

  #blockAt(index: number): Eventually<NextBlock> {
    const known = this.#byIndex[index];
    if (known !== undefined) return known;
    const { refcounts } = this.#store;
    const old = refcounts.load(index);
    return old instanceof Promise
      ? old.then((table) => this.#keep(index, table))
      : this.#keep(index, old);
  }

  #keep(index: number, old: Table | null): NextBlock {
    const { image } = this.#store;
    const { clusterSize } = image;
    if ((this.#blocks.length + 1) * clusterSize > QCOW2_LIMITS.snapshotRefcountBytes) {
      const most = `more than ${QCOW2_LIMITS.snapshotRefcountBytes} bytes of refcounts`;
      throw new BlockError('too-large', `${image.label}: a snapshot would change ${most}`);
    }
    if (old !== null && this.#oldOffsets.has(old.offset)) {
      throw image.corruptError(`refcount block at offset ${old.offset} is named twice`);
    }
    if (old !== null) this.#oldOffsets.add(old.offset);
    const bytes = old === null ? new Uint8Array(clusterSize) : old.bytes.slice();
    const block: NextBlock = {
      index,
      bytes,
      view: viewOf(bytes),
      oldOffset: old?.offset ?? 0,
      taken: new Uint8Array(Math.ceil(this.#entries / 8)),
      changed: false,
      offset: 0,
    };
    for (let at = 0; at < this.#entries; at += 1) {
      if (readRefcount(block.view, this.#order, at) === 0) continue;
      block.taken[at >>> 3] = (block.taken[at >>> 3] ?? 0) | (1 << (at & 7));
    }
    this.#byIndex[index] = block;
    this.#blocks.push(block);
    return block;
  }

  #tooMany(cluster: number): BlockError {
    const { image } = this.#store;
    const place = cluster * image.clusterSize;
    return new BlockError(
      'invalid-option',
      `${image.label}: cluster at offset ${place} has too many references for ` +
        `${image.geometry.refcountBits}-bit refcounts`,
      { node: image.name, errno: 'EINVAL' },
    );
  }
}
