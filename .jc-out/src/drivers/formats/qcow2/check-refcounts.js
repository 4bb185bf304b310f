// SPDX-License-Identifier: Apache-2.0
// Two sides of a check: references counted by sweeping the tables, and refcounts read from disk.
//
// Counted references live in pages of 65,536 clusters that exist only where something refers to a
// cluster: a short list of clusters first, then one byte for each cluster, four once a count
// passes 255. So memory follows the references and not the length of a sparse file.
import { BlockError, IMAGE_LIMITS } from '../../../base/index.js';
import { readRequest, writeRequest } from '../../../block/index.js';
import { isZero } from '../../../codec/index.js';
const PAGE_BITS = 16;
const PAGE_CLUSTERS = 1 << PAGE_BITS;
/** References that a page lists before it counts by cluster. */
const LISTED = 256;
/** How often each host cluster is referred to. */
export class ReferenceCounts {
    #pages = new Map();
    /** Page numbers in order; made when counting is over. */
    #sorted = null;
    add(cluster) {
        const number = Math.floor(cluster / PAGE_CLUSTERS);
        const index = cluster % PAGE_CLUSTERS;
        let page = this.#pages.get(number);
        if (page === undefined) {
            page = { list: new Uint16Array(4), length: 0, counts: null };
            this.#pages.set(number, page);
            this.#sorted = null;
        }
        if (page.counts === null && page.length < LISTED)
            appendTo(page, index);
        else
            countIn(page, index);
    }
    get(cluster) {
        const page = this.#pages.get(Math.floor(cluster / PAGE_CLUSTERS));
        if (page === undefined)
            return 0;
        const index = cluster % PAGE_CLUSTERS;
        if (page.counts !== null)
            return page.counts[index] ?? 0;
        let count = 0;
        for (let at = 0; at < page.length; at += 1)
            if (page.list[at] === index)
                count += 1;
        return count;
    }
    /** The first cluster from `from` on that has a count; Infinity when there is none. */
    next(from) {
        this.#sorted ??= [...this.#pages.keys()].toSorted((a, b) => a - b);
        const first = Math.floor(from / PAGE_CLUSTERS);
        let low = 0;
        let high = this.#sorted.length;
        while (low < high) {
            const middle = (low + high) >>> 1;
            if ((this.#sorted[middle] ?? 0) >= first)
                high = middle;
            else
                low = middle + 1;
        }
        for (; low < this.#sorted.length; low += 1) {
            const number = this.#sorted[low] ?? 0;
            const page = this.#pages.get(number);
            const index = page === undefined ? -1 : nextIn(page, number === first ? from : 0);
            if (index >= 0)
                return number * PAGE_CLUSTERS + index;
        }
        return Infinity;
    }
}
function appendTo(page, index) {
    if (page.length === page.list.length) {
        const longer = new Uint16Array(page.list.length * 2);
        longer.set(page.list);
        page.list = longer;
    }
    page.list[page.length] = index;
    page.length += 1;
}
function countIn(page, index) {
    let counts = page.counts;
    if (counts === null) {
        // A cluster that is listed 256 times does not fit a byte.
        counts = new Uint32Array(PAGE_CLUSTERS);
        for (const listed of page.list.subarray(0, page.length)) {
            counts[listed] = (counts[listed] ?? 0) + 1;
        }
        if (!counts.some((count) => count > 0xff))
            counts = Uint8Array.from(counts);
        page.list = page.list.subarray(0, 0);
        page.length = 0;
    }
    const count = (counts[index] ?? 0) + 1;
    if (count > 0xff && counts instanceof Uint8Array)
        counts = Uint32Array.from(counts);
    counts[index] = count;
    page.counts = counts;
}
/** Index of the first counted cluster of a page from `from` (modulo the page) on, or −1. */
function nextIn(page, from) {
    const first = from % PAGE_CLUSTERS;
    const { counts } = page;
    if (counts !== null) {
        let index = first;
        while (index < PAGE_CLUSTERS && counts[index] === 0)
            index += 1;
        return index < PAGE_CLUSTERS ? index : -1;
    }
    let best = -1;
    for (let at = 0; at < page.length; at += 1) {
        const index = page.list[at] ?? 0;
        if (index >= first && (best < 0 || index < best))
            best = index;
    }
    return best;
}
/** One refcount of a block; 64-bit ones beyond 2^53 are not exact. */
export function refcountAt(block, index, refcountBits) {
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
/** What reading one table costs beside its bytes. */
const READ_COST = 16_384;
/** Bounds what is read of tables that turn out to be empty: a sparse file may have any number. */
export class EmptyTables {
    #what;
    #count = 0;
    #cost = 0;
    /** `what` names the tables and the field that gives their number. */
    constructor(what) {
        this.#what = what;
    }
    add(bytes) {
        this.#count += 1;
        this.#cost += bytes + READ_COST;
        if (this.#cost <= IMAGE_LIMITS.checkEmptyTableBytes)
            return;
        throw new BlockError('corrupt-image', `Too many empty tables: ${this.#count} of the ${this.#what} hold nothing`);
    }
}
/** Refcount blocks as the file has them, a few at a time. */
export class RefcountsOnDisk {
    #file;
    #header;
    #table;
    #blocks = new Map();
    #empty;
    #noRefcounts;
    constructor(file, header, table) {
        this.#file = file;
        this.#header = header;
        this.#table = new DataView(table.buffer, table.byteOffset, table.byteLength);
        this.#noRefcounts = new Uint8Array(header.geometry.clusterSize);
        const clusters = header.fields.refcountTableClusters;
        this.#empty = new EmptyTables(`refcount blocks (refcount_table_clusters ${clusters})`);
    }
    get tableEntries() {
        return this.#table.byteLength / 8;
    }
    entryHi(index) {
        return this.#table.getUint32(index * 8);
    }
    entryLo(index) {
        return this.#table.getUint32(index * 8 + 4);
    }
    /** Offset of a refcount block without its reserved bits; 0 means all refcounts are zero. */
    blockOffset(index) {
        if (index >= this.tableEntries)
            return 0;
        return this.entryHi(index) * 0x1_0000_0000 + ((this.entryLo(index) & ~0x1ff) >>> 0);
    }
    /**
     * Null when the block cannot be used: its offset is not aligned. All zero beyond the file.
     * Throws kind `corrupt-image` when too many are read to find nothing in them.
     */
    block(index) {
        const offset = this.blockOffset(index);
        if (offset === 0)
            return this.#noRefcounts;
        if (offset % this.#header.geometry.clusterSize !== 0)
            return null;
        return this.#blocks.get(index) ?? this.#load(index, offset);
    }
    /** Writes a block that has changed in its place. */
    async replace(index, bytes) {
        const before = this.#blocks.get(index);
        if (before !== undefined && Buffer.compare(before, bytes) === 0)
            return;
        await this.#file.node.write(writeRequest(this.blockOffset(index), bytes));
        this.#blocks.delete(index);
    }
    async #load(index, offset) {
        const bytes = new Uint8Array(this.#header.geometry.clusterSize);
        await readWithin(this.#file, offset, bytes);
        if (isZero(bytes))
            this.#empty.add(bytes.length);
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
export async function readWithin(file, offset, bytes) {
    const there = Math.max(0, Math.min(bytes.length, file.node.length - offset));
    bytes.fill(0, there);
    if (there > 0)
        await file.node.read(readRequest(offset, bytes.subarray(0, there)));
}
