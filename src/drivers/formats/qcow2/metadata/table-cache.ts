// SPDX-License-Identifier: Apache-2.0
// A cache of metadata tables of one cluster each (L2 tables or refcount blocks), by host offset.
//
// Clean, unpinned tables live in an LRU cache that may drop any of them; dirty or pinned ones live
// in an ordered map and are never dropped. A table that is neither pinned nor dirty may be used
// only within one synchronous turn. Concurrent misses of one table share one load. Nothing is
// written from here: flush.ts asks for the dirty tables and tells which version reached the disk.

import { LRUCache } from 'lru-cache';

import type { Eventually } from '../../../../base/index.js';

export class Table {
  readonly offset: number;
  readonly bytes: Uint8Array;
  readonly view: DataView;
  /**
   * Of each piece of the table the version that changed it last; null: no piece by itself, the
   * table is written as a whole.
   */
  pieces: Float64Array | null = null;
  /** Counts changes; the table is dirty while `written` is behind it. */
  version = 0;
  written = 0;
  pins = 0;
  /** Rounds of giving up unused tables (see TableCache.giveUpUnused()) when it was last used. */
  usedIn = 0;

  constructor(offset: number, bytes: Uint8Array) {
    this.offset = offset;
    this.bytes = bytes;
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  get dirty(): boolean {
    return this.version !== this.written;
  }
}

export interface TableCacheOptions {
  readonly tableBytes: number;
  readonly cacheBytes: number;
  /** Tables are written in pieces of so many bytes, as far as they changed; absent: whole. */
  readonly pieceBytes?: () => number;
  /** Checks the offset and reads the table; a throw leaves nothing in the cache. */
  readonly fill: (bytes: Uint8Array, offset: number) => Eventually<void>;
}

const MIN_TABLES = 4;
const one = (): number => 1;

export class TableCache {
  readonly #options: TableCacheOptions;
  #clean: LRUCache<number, Table>;
  readonly #held = new Map<number, Table>();
  readonly #loading = new Map<number, Promise<Table>>();
  #last: Table | null = null;
  #dirtyCount = 0;
  #round = 0;

  constructor(options: TableCacheOptions) {
    this.#options = options;
    this.#clean = cacheOf(options, options.cacheBytes);
  }

  /** Another limit for clean tables, in bytes; those used last stay. */
  resize(cacheBytes: number): void {
    const clean = cacheOf(this.#options, cacheBytes);
    for (const table of [...this.#clean.values()].reverse()) clean.set(table.offset, table);
    this.#clean = clean;
    this.#last = null;
  }

  /** Drops the clean tables that nobody used since the last time; whether any stay. */
  giveUpUnused(): boolean {
    for (const table of this.#clean.values()) {
      if (table.usedIn < this.#round) this.#clean.delete(table.offset);
    }
    this.#last = null;
    this.#round += 1;
    return this.#clean.size > 0 || this.#held.size > 0;
  }

  /** Clean tables in memory. */
  get cleanCount(): number {
    return this.#clean.size;
  }

  get dirtyCount(): number {
    return this.#dirtyCount;
  }

  /** The table when it is in memory; valid within this turn unless pinned. */
  peek(offset: number): Table | undefined {
    const last = this.#last;
    if (last !== null && last.offset === offset) return last;
    const table = this.#held.get(offset) ?? this.#clean.get(offset);
    if (table !== undefined) {
      table.usedIn = this.#round;
      this.#last = table;
    }
    return table;
  }

  load(offset: number): Eventually<Table> {
    const present = this.peek(offset);
    if (present !== undefined) return present;
    const pending = this.#loading.get(offset);
    if (pending !== undefined) return pending;
    const table = new Table(offset, new Uint8Array(this.#options.tableBytes));
    const filled = this.#options.fill(table.bytes, offset);
    if (!(filled instanceof Promise)) return this.#keep(table);
    const load = filled.then(
      () => {
        this.#loading.delete(offset);
        // A new table may have taken the place meanwhile.
        return this.peek(offset) ?? this.#keep(table);
      },
      (error: unknown) => {
        this.#loading.delete(offset);
        throw error;
      },
    );
    this.#loading.set(offset, load);
    return load;
  }

  /** A new table of zeroes (or `bytes`) at a freshly allocated offset, dirty from the start. */
  add(offset: number, bytes = new Uint8Array(this.#options.tableBytes)): Table {
    const table = new Table(offset, bytes);
    // Refcounts that are wrong may give the cluster of a table that is in use.
    const before = this.#held.get(offset);
    if (before !== undefined) this.drop(before);
    this.#clean.delete(offset);
    this.#last = table;
    this.touch(table);
    return table;
  }

  /** Takes in a table that was written to the disk already. */
  adopt(table: Table): void {
    this.#held.delete(table.offset);
    this.#keep(table);
  }

  /** The table was changed: `length` bytes from `at` on, or anywhere in it. */
  touch(table: Table, at = 0, length = table.bytes.length): void {
    if (!table.dirty) {
      this.#dirtyCount += 1;
      this.#hold(table);
      this.#cutUp(table);
    }
    table.version += 1;
    const { pieces } = table;
    if (pieces === null) return;
    const size = table.bytes.length / pieces.length;
    pieces.fill(table.version, Math.floor(at / size), Math.ceil((at + length) / size));
  }

  /** A clean table has pieces of the size that is in force now, none of them changed. */
  #cutUp(table: Table): void {
    const { tableBytes, pieceBytes } = this.#options;
    const count = tableBytes / Math.min(tableBytes, pieceBytes?.() ?? tableBytes);
    if (count === 1) table.pieces = null;
    else if (table.pieces?.length === count) table.pieces.fill(0);
    else table.pieces = new Float64Array(count);
  }

  /** `version` of the table is on its way to stable storage. */
  cleaned(table: Table, version: number): void {
    if (!table.dirty || version <= table.written) return;
    table.written = version;
    if (table.dirty) return;
    this.#dirtyCount -= 1;
    this.#settleDown(table);
  }

  pin(table: Table): void {
    table.pins += 1;
    this.#hold(table);
  }

  unpin(table: Table): void {
    table.pins -= 1;
    this.#settleDown(table);
  }

  /** Dirty tables in order of their offsets. */
  dirtyTables(): Table[] {
    const tables: Table[] = [];
    for (const table of this.#held.values()) if (table.dirty) tables.push(table);
    return tables.sort((left, right) => left.offset - right.offset);
  }

  /** Forgets a table whose cluster is given up. */
  drop(table: Table): void {
    if (table.dirty) this.#dirtyCount -= 1;
    table.written = table.version;
    this.#held.delete(table.offset);
    this.#clean.delete(table.offset);
    if (this.#last === table) this.#last = null;
  }

  clear(): void {
    this.#held.clear();
    this.#clean.clear();
    this.#last = null;
    this.#dirtyCount = 0;
  }

  #keep(table: Table): Table {
    table.usedIn = this.#round;
    this.#clean.set(table.offset, table);
    this.#last = table;
    return table;
  }

  #hold(table: Table): void {
    this.#held.set(table.offset, table);
    this.#clean.delete(table.offset);
  }

  #settleDown(table: Table): void {
    if (table.dirty || table.pins > 0 || this.#held.get(table.offset) !== table) return;
    table.usedIn = this.#round;
    this.#held.delete(table.offset);
    this.#clean.set(table.offset, table);
  }
}

function cacheOf({ tableBytes }: TableCacheOptions, bytes: number): LRUCache<number, Table> {
  const maxSize = Math.max(MIN_TABLES, Math.floor(bytes / tableBytes));
  // With `max` it would make room for that many at once, 65 536 for clusters of 512 bytes.
  return new LRUCache<number, Table>({ maxSize, sizeCalculation: one });
}
