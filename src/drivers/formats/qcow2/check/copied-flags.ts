// SPDX-License-Identifier: Apache-2.0
// Compares the copied flags of the active L1 table and its L2 tables with the refcounts on disk.
//
// A flag says that the refcount of what an entry names is exactly one. A wrong one is turned where
// it stands when the check repairs; nothing else of an entry changes. A table that lies on another
// structure is not written, and the repair ends where that is the L1 table.

import { hexBits, settle } from '../../../../base/index.js';
import type { Eventually } from '../../../../base/index.js';
import { writeRequest } from '../../../../block/index.js';
import type { Child } from '../../../../block/index.js';
import {
  EntryKind,
  entryHostOffset,
  entryKind,
  entryKindOutside,
  isCopied,
} from '../entries.js';
import type { Qcow2Header } from '../header.js';
import type { Findings } from './findings.js';
import type { L2Tables } from './l2-tables.js';
import { refcountAt } from './refcounts-on-disk.js';
import type { RefcountsOnDisk } from './refcounts-on-disk.js';
import type { Regions } from './regions.js';

export interface FlagsContext {
  readonly file: Pick<Child, 'node'>;
  readonly header: Qcow2Header;
  readonly findings: Findings;
  readonly onDisk: RefcountsOnDisk;
  readonly regions: Regions;
  readonly isRepaired: boolean;
}

export class CopiedFlags {
  readonly #context: FlagsContext;
  /** The refcount block used last. */
  #blockIndex = -1;
  #block: Uint8Array | null = null;
  /** The table that is compared may be written. */
  #isWritable = false;

  constructor(context: FlagsContext) {
    this.#context = context;
  }

  async compare(l1Offset: number, tables: L2Tables): Promise<void> {
    const { file, findings, regions } = this.#context;
    const fileLength = file.node.length;
    const isL1Alone = this.#isAlone(l1Offset, tables.entries * 8);
    tables.restart();
    for (let index = 0; index < tables.entries; index += 1) {
      const offset = tables.offset(index);
      if (offset === 0) continue;
      this.#isWritable = true;
      const found = this.#compareL1Entry(tables, index);
      if (found instanceof Promise ? await found : found) {
        if (!isL1Alone) {
          findings.say(() => 'ERROR: Overlap check failed');
          findings.failure = 'Input/output error';
          return;
        }
        await this.#turnL1Entry(l1Offset + index * 8, tables, index);
      }
      const times = offset >= fileLength ? 0 : tables.visits(offset);
      if (times === 0) continue;
      const read = tables.read(index);
      const bytes = read instanceof Promise ? await read : read;
      if (bytes === null) continue;
      this.#isWritable = regions.isFreeOfStructures(offset);
      const isTurned = await this.#compareTable(bytes, times);
      if (isTurned) await file.node.write(writeRequest(offset, bytes));
    }
  }

  /** One reference for each cluster of the table: nothing else lies there. */
  #isAlone(offset: number, length: number): boolean {
    const { clusterSize } = this.#context.header.geometry;
    const { references } = this.#context.regions;
    for (let at = offset; at < offset + length; at += clusterSize) {
      if (references.get(at / clusterSize) !== 1) return false;
    }
    return true;
  }

  /** True when the flag is to be turned. */
  #compareL1Entry(tables: L2Tables, index: number): Eventually<boolean> {
    const hi = tables.hi(index);
    return settle(this.#refcountOf(tables.offset(index)), (refcount) => {
      if ((refcount === 1) === isCopied(hi)) return false;
      const facts = (): string => {
        const entry = hexBits({ hi, lo: tables.lo(index) });
        return `L2 cluster: l1_index=${index} l1_entry=${entry} refcount=${refcount ?? 0}`;
      };
      return this.#isTurned(facts, 1);
    });
  }

  async #turnL1Entry(place: number, tables: L2Tables, index: number): Promise<void> {
    const entry = new Uint8Array(8);
    const view = new DataView(entry.buffer);
    view.setUint32(0, turned(tables.hi(index)));
    view.setUint32(4, tables.lo(index));
    await this.#context.file.node.write(writeRequest(place, entry));
  }

  /** True when flags were turned in `bytes`. */
  async #compareTable(bytes: Uint8Array, times: number): Promise<boolean> {
    let isAnyTurned = false;
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const { l2EntryBytes, dataFile } = this.#context.header.geometry;
    for (let at = 0; at < bytes.length; at += l2EntryBytes) {
      const hi = view.getUint32(at);
      const lo = view.getUint32(at + 4);
      const kind = dataFile ? entryKindOutside(hi, lo, 3) : entryKind(hi, lo, 3);
      if (kind !== EntryKind.data && kind !== EntryKind.zeroAllocated) continue;
      // Nothing counts clusters of a data file: each belongs to one guest cluster.
      const found = dataFile ? 1 : this.#refcountOf(entryHostOffset(hi, lo));
      const refcount = found instanceof Promise ? await found : found;
      if ((refcount === 1) === isCopied(hi)) continue;
      const facts = (): string =>
        `data cluster: l2_entry=${hexBits({ hi, lo })} refcount=${refcount}`;
      if (!this.#isTurned(facts, times)) continue;
      view.setUint32(at, turned(hi));
      isAnyTurned = true;
    }
    return isAnyTurned;
  }

  /** Null where the block of refcounts cannot be used. */
  #refcountOf(offset: number): Eventually<number | null> {
    const { geometry } = this.#context.header;
    const cluster = Math.floor(offset / geometry.clusterSize);
    const index = Math.floor(cluster / geometry.refcountBlockEntries);
    const at = cluster % geometry.refcountBlockEntries;
    if (index !== this.#blockIndex) {
      const block = this.#context.onDisk.block(index);
      if (block instanceof Promise) return block.then((bytes) => this.#keep(index, bytes, at));
      return this.#keep(index, block, at);
    }
    return this.#block && refcountAt(this.#block, at, geometry.refcountBits);
  }

  #keep(index: number, block: Uint8Array | null, at: number): number | null {
    this.#blockIndex = index;
    this.#block = block;
    return block && refcountAt(block, at, this.#context.header.geometry.refcountBits);
  }

  /** A flag is wrong: it is to be turned if the answer is true. */
  #isTurned(facts: () => string, times: number): boolean {
    const { findings, isRepaired } = this.#context;
    if (!isRepaired || !this.#isWritable) {
      findings.corrupt(() => `ERROR OFLAG_COPIED ${facts()}`, times);
      return false;
    }
    findings.corruptionsFixed += 1;
    findings.say(() => `Repairing OFLAG_COPIED ${facts()}`);
    return true;
  }
}

/** The upper half of an entry with the other copied flag. */
function turned(hi: number): number {
  return (hi ^ 0x8000_0000) >>> 0;
}
