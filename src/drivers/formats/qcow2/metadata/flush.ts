// SPDX-License-Identifier: Apache-2.0
// The order in which metadata reaches the disk: a crash at any write leaves leaks at worst.
//
// A metadata flush begins with a cut, taken in one synchronous turn: copies of the dirty refcount
// blocks, refcount table sectors, L2 tables and L1 sectors, and the frees waiting for them. Then:
//   1. write refcount blocks              (they hold increments only, see refcounts.ts)
//   2. sync, write refcount table sectors (only when a block was added)
//   3. sync, write L2 tables              (the sync covers guest data and refcounts of the cut)
//   4. sync, write L1 sectors             (only when an L2 table was added)
//   5. sync when the caller asked for durability or frees wait
//   6. the cut's frees become ready: their refcounts may go down, their clusters be punched
// Guest data is written before its L2 entry is linked in memory, and the cut precedes the sync that
// precedes the L2 writes: unflushed data is old or new, never a stale cluster. What changes after
// the cut stays dirty (tables by version). One flush runs at a time; callers that come while one
// runs share the next. exclusive() is the same queue, for operations that switch whole tables.
//
// With lazy refcounts the dirty bit is on stable storage before the first refcount changes there,
// and goes when everything is out (settle()): after a crash the next writer counts anew. The order
// above holds all the same.

import { QCOW2_LIMITS } from '../../../../base/index.js';
import { SECTOR_SIZE } from '../layout.js';
import type { Qcow2Image } from './image.js';
import type { Free, Refcounts } from './refcounts.js';
import type { Table, TableCache } from './table-cache.js';

/** Adjacent tables or sectors, copied at the cut. */
interface CutWrite {
  readonly offset: number;
  readonly bytes: Uint8Array;
  readonly tables: readonly {
    readonly table: Table;
    readonly version: number;
    /** Nothing of the table is left to write afterwards. */
    readonly isLast: boolean;
  }[];
}

interface Cut {
  readonly blocks: readonly CutWrite[];
  readonly refcountTable: readonly CutWrite[];
  readonly refcountTableSectors: readonly number[];
  readonly l2: readonly CutWrite[];
  readonly l1: readonly CutWrite[];
  readonly l1Sectors: readonly number[];
  readonly frees: readonly Free[];
}

interface Ticket {
  durable: boolean;
  promise: Promise<void>;
}

export class Flusher {
  readonly #image: Qcow2Image;
  readonly #refcounts: Refcounts;
  /** End of the queue of exclusive work; never rejects. */
  #tail: Promise<void> = Promise.resolve();
  #queued: Ticket | null = null;
  #exclusive = 0;
  /** The dirty bit is there because of what was written since. */
  #markedDirty = false;

  constructor(image: Qcow2Image, refcounts: Refcounts) {
    this.#image = image;
    this.#refcounts = refcounts;
  }

  /** Nothing in memory that was not handed to a flush. */
  get isClean(): boolean {
    const image = this.#image;
    return (
      image.l2.dirtyCount === 0 &&
      image.refcountBlocks.dirtyCount === 0 &&
      image.dirtyL1Sectors.size === 0 &&
      image.dirtyRefcountTableSectors.size === 0 &&
      !this.#refcounts.hasPending
    );
  }

  /** Clean, and no flush is halfway: a sync of the file is all that durability takes. */
  get isIdle(): boolean {
    return this.#exclusive === 0 && this.isClean;
  }

  /** So much is dirty that the next writer should wait for a metadata flush. */
  get isCrowded(): boolean {
    const { l2, refcountBlocks, clusterSize } = this.#image;
    const dirty = l2.dirtyCount + refcountBlocks.dirtyCount;
    if (dirty <= 2) return false;
    return dirty > QCOW2_LIMITS.dirtyTables || dirty * clusterSize > QCOW2_LIMITS.dirtyTableBytes;
  }

  /** Writes what is dirty now; with `durable` it is on stable storage when this resolves. */
  flush(durable: boolean): Promise<void> {
    if (this.#queued !== null) {
      this.#queued.durable ||= durable;
      return this.#queued.promise;
    }
    const ticket: Ticket = { durable, promise: this.#tail };
    this.#queued = ticket;
    ticket.promise = this.exclusive(() => {
      this.#queued = null;
      return this.#run(ticket.durable);
    });
    return ticket.promise;
  }

  /** Everything out, freed clusters included: memory and disk agree then and nothing leaks. */
  async flushAll(): Promise<void> {
    do {
      await this.flush(true);
      await this.#refcounts.drain();
    } while (!this.isClean);
  }

  /** flushAll(), and the header says that the refcounts are right. */
  async settle(): Promise<void> {
    await this.flushAll();
    if (!this.#markedDirty) return;
    const image = this.#image;
    await this.exclusive(async () => {
      await image.structures.patchHeader({ dirty: false });
      await image.sync();
      this.#markedDirty = false;
    });
  }

  /** Runs alone among flushes; must not wait for one. */
  exclusive<T>(work: () => Promise<T>): Promise<T> {
    this.#exclusive += 1;
    const result = this.#tail.then(work).finally(() => {
      this.#exclusive -= 1;
    });
    this.#tail = result.then(noop, noop);
    return result;
  }

  /** Part of exclusive work: refcount blocks may be written at any time. */
  async writeRefcountBlocks(): Promise<void> {
    await this.#writeTables(this.#image.refcountBlocks, this.#cutTables('refcount block'));
  }

  async #run(durable: boolean): Promise<void> {
    const image = this.#image;
    if (this.isClean) {
      if (durable) await image.sync();
      return;
    }
    image.assertWritable();
    await this.#markDirty();
    const cut = this.#cut();
    try {
      await this.#write(cut, durable);
    } catch (error) {
      this.#putBack(cut);
      throw error;
    }
    this.#refcounts.release(cut.frees);
    this.#refcounts.drainLater();
  }

  /** Before any refcount changes on disk. A mark that was found at opening is not ours to clear. */
  async #markDirty(): Promise<void> {
    const image = this.#image;
    if (!image.lazyRefcounts || this.#markedDirty) return;
    if (image.refcountBlocks.dirtyCount + image.dirtyRefcountTableSectors.size === 0) return;
    if (image.structures.info().dirty === true) return;
    await image.structures.patchHeader({ dirty: true });
    await image.sync();
    this.#markedDirty = true;
  }

  #cut(): Cut {
    const image = this.#image;
    const refcountTableSectors = [...image.dirtyRefcountTableSectors];
    const l1Sectors = [...image.dirtyL1Sectors];
    const cut: Cut = {
      blocks: this.#cutTables('refcount block'),
      refcountTable: cutSectors(image.refcountTable, {
        offset: image.refcountTableOffset,
        sectors: refcountTableSectors,
      }),
      refcountTableSectors,
      l2: this.#cutTables('L2 table'),
      l1: cutSectors(image.l1, { offset: image.l1Offset, sectors: l1Sectors }),
      l1Sectors,
      frees: this.#refcounts.takePending(),
    };
    image.dirtyRefcountTableSectors.clear();
    image.dirtyL1Sectors.clear();
    return cut;
  }

  async #write(cut: Cut, durable: boolean): Promise<void> {
    const image = this.#image;
    if (cut.refcountTable.length > 0) await image.point('refblock_alloc_write');
    await this.#writeTables(image.refcountBlocks, cut.blocks);
    if (cut.refcountTable.length > 0) {
      await image.sync();
      await image.point('refblock_alloc_hookup');
      for (const write of cut.refcountTable) await image.writeFile(write.offset, write.bytes);
    }
    if (cut.l2.length > 0 || cut.l1.length > 0) {
      await image.sync();
      await this.#writeTables(image.l2, cut.l2);
    }
    if (cut.l1.length > 0) {
      await image.sync();
      await image.point('l1_update');
      for (const write of cut.l1) await image.writeFile(write.offset, write.bytes);
    }
    if (durable || cut.frees.length > 0) await image.sync();
  }

  #putBack(cut: Cut): void {
    const image = this.#image;
    for (const sector of cut.refcountTableSectors) image.dirtyRefcountTableSectors.add(sector);
    for (const sector of cut.l1Sectors) image.dirtyL1Sectors.add(sector);
    this.#refcounts.putBack(cut.frees);
  }

  async #writeTables(cache: TableCache, writes: readonly CutWrite[]): Promise<void> {
    const image = this.#image;
    const kind = cache === image.l2 ? 'L2 table' : 'refcount block';
    for (const write of writes) {
      for (const { table } of write.tables) {
        const hit = image.overlaps.hitByTable(table.offset, kind);
        if (hit !== null) {
          const place = { offset: table.offset, length: table.bytes.length };
          throw image.overlapError(hit, kind, place);
        }
      }
      const point = kind === 'L2 table' ? 'l2_update' : 'refblock_update_part';
      await image.writeFileAt(point, write.offset, write.bytes);
      for (const { table, version, isLast } of write.tables) {
        if (isLast) cache.cleaned(table, version);
      }
    }
  }

  #cutTables(kind: 'L2 table' | 'refcount block'): CutWrite[] {
    const image = this.#image;
    const cache = kind === 'L2 table' ? image.l2 : image.refcountBlocks;
    const parts = cache.dirtyTables().flatMap(changedParts);
    const writes: CutWrite[] = [];
    for (let first = 0; first < parts.length; ) {
      let end = first + 1;
      let length = parts[first]?.length ?? 0;
      for (let next = parts[end]; next !== undefined; next = parts[end]) {
        const follows = next.offset === (parts[first]?.offset ?? 0) + length;
        if (!follows || length + next.length > QCOW2_LIMITS.tableWriteBytes) break;
        length += next.length;
        end += 1;
      }
      writes.push(copyParts(parts.slice(first, end), length));
      first = end;
    }
    return writes;
  }
}

/** Bytes of a table in a row that go out. */
interface Part {
  /** In the file. */
  readonly offset: number;
  readonly length: number;
  readonly table: Table;
  /** The table has no part behind this one. */
  readonly isLast: boolean;
}

/** What of a dirty table is not on disk, in its order; at least one part. */
function changedParts(table: Table): Part[] {
  const { pieces, bytes, offset, written } = table;
  const size = pieces === null ? bytes.length : bytes.length / pieces.length;
  const parts: Part[] = [];
  for (let index = 0; index < (pieces?.length ?? 1); index += 1) {
    if (pieces !== null && (pieces[index] ?? 0) <= written) continue;
    parts.push({ offset: offset + index * size, length: size, table, isLast: false });
  }
  return parts.map((part, index) => ({ ...part, isLast: index === parts.length - 1 }));
}

function copyParts(parts: readonly Part[], length: number): CutWrite {
  const bytes = new Uint8Array(length);
  const [first] = parts;
  const offset = first?.offset ?? 0;
  for (const part of parts) {
    const start = part.offset - part.table.offset;
    bytes.set(part.table.bytes.subarray(start, start + part.length), part.offset - offset);
  }
  const tables = parts.map(({ table, isLast }) => ({ table, version: table.version, isLast }));
  return { offset, bytes, tables };
}

function cutSectors(
  whole: Uint8Array,
  dirty: { readonly offset: number; readonly sectors: readonly number[] },
): CutWrite[] {
  return dirty.sectors.map((sector) => {
    const start = sector * SECTOR_SIZE;
    return {
      offset: dirty.offset + start,
      bytes: whole.slice(start, start + SECTOR_SIZE),
      tables: [],
    };
  });
}

function noop(): void {
  return undefined;
}

