// SPDX-License-Identifier: Apache-2.0
// A cache of metadata tables of one cluster each (L2 tables or refcount blocks), by host offset.
//
// Clean, unpinned tables live in an LRU cache that may drop any of them; dirty or pinned ones live
// in an ordered map and are never dropped. A table that is neither pinned nor dirty may be used
// only within one synchronous turn. Concurrent misses of one table share one load. Nothing is
// written from here: flush.ts asks for the dirty tables and tells which version reached the disk.
import { LRUCache } from 'lru-cache';
export class Table {
    offset;
    bytes;
    view;
    /** Counts changes; the table is dirty while `written` is behind it. */
    version = 0;
    written = 0;
    pins = 0;
    constructor(offset, bytes) {
        this.offset = offset;
        this.bytes = bytes;
        this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    }
    get dirty() {
        return this.version !== this.written;
    }
}
const MIN_TABLES = 4;
const one = () => 1;
export class TableCache {
    #options;
    #clean;
    #held = new Map();
    #loading = new Map();
    #last = null;
    #dirtyCount = 0;
    constructor(options) {
        this.#options = options;
        const maxSize = Math.max(MIN_TABLES, Math.floor(options.cacheBytes / options.tableBytes));
        // With `max` it would make room for that many at once, 65 536 for clusters of 512 bytes.
        this.#clean = new LRUCache({ maxSize, sizeCalculation: one });
    }
    get dirtyCount() {
        return this.#dirtyCount;
    }
    /** The table when it is in memory; valid within this turn unless pinned. */
    peek(offset) {
        const last = this.#last;
        if (last !== null && last.offset === offset)
            return last;
        const table = this.#held.get(offset) ?? this.#clean.get(offset);
        if (table !== undefined)
            this.#last = table;
        return table;
    }
    load(offset) {
        const present = this.peek(offset);
        if (present !== undefined)
            return present;
        const pending = this.#loading.get(offset);
        if (pending !== undefined)
            return pending;
        const table = new Table(offset, new Uint8Array(this.#options.tableBytes));
        const filled = this.#options.fill(table.bytes, offset);
        if (!(filled instanceof Promise))
            return this.#keep(table);
        const load = filled.then(() => {
            this.#loading.delete(offset);
            return this.#keep(table);
        }, (error) => {
            this.#loading.delete(offset);
            throw error;
        });
        this.#loading.set(offset, load);
        return load;
    }
    /** A new table of zeroes (or `bytes`) at a freshly allocated offset, dirty from the start. */
    add(offset, bytes = new Uint8Array(this.#options.tableBytes)) {
        const table = new Table(offset, bytes);
        this.#clean.delete(offset);
        this.#last = table;
        this.touch(table);
        return table;
    }
    /** Takes in a table that was written to the disk already. */
    adopt(table) {
        this.#held.delete(table.offset);
        this.#keep(table);
    }
    /** The table was changed. */
    touch(table) {
        if (!table.dirty) {
            this.#dirtyCount += 1;
            this.#hold(table);
        }
        table.version += 1;
    }
    /** `version` of the table is on its way to stable storage. */
    cleaned(table, version) {
        if (!table.dirty || version <= table.written)
            return;
        table.written = version;
        if (table.dirty)
            return;
        this.#dirtyCount -= 1;
        this.#settleDown(table);
    }
    pin(table) {
        table.pins += 1;
        this.#hold(table);
    }
    unpin(table) {
        table.pins -= 1;
        this.#settleDown(table);
    }
    /** Dirty tables in order of their offsets. */
    dirtyTables() {
        const tables = [];
        for (const table of this.#held.values())
            if (table.dirty)
                tables.push(table);
        return tables.sort((left, right) => left.offset - right.offset);
    }
    /** Forgets a table whose cluster is given up. */
    drop(table) {
        if (table.dirty)
            this.#dirtyCount -= 1;
        table.written = table.version;
        this.#held.delete(table.offset);
        this.#clean.delete(table.offset);
        if (this.#last === table)
            this.#last = null;
    }
    clear() {
        this.#held.clear();
        this.#clean.clear();
        this.#last = null;
        this.#dirtyCount = 0;
    }
    #keep(table) {
        this.#clean.set(table.offset, table);
        this.#last = table;
        return table;
    }
    #hold(table) {
        this.#held.set(table.offset, table);
        this.#clean.delete(table.offset);
    }
    #settleDown(table) {
        if (table.dirty || table.pins > 0 || this.#held.get(table.offset) !== table)
            return;
        this.#held.delete(table.offset);
        this.#clean.set(table.offset, table);
    }
}
