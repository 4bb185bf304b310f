// SPDX-License-Identifier: Apache-2.0
// Bits in three levels: pages of 32,768 bits (4 KiB), tables of 4096 pages, and the tables.
//
// A page or table exists only where its bits are mixed: all clean it is absent, all dirty it is the
// word `dirty`, and it is folded back as soon as its bits have become equal. So neither a terabyte
// at 512 bytes granularity, nor a copy that goes through it piece by piece, costs the memory for
// its bits, and a range of any length is filled in steps of whole tables. The last page and table,
// which the size cuts short, hold their bits. Bits past `size` are always clear. The number of set
// bits is kept at all times.
const PAGE_BITS = 32_768;
const PAGE_WORDS = PAGE_BITS / 32;
const PAGE_BYTES = PAGE_BITS / 8;
/** Of a page that has hardly any bits yet. */
const FIRST_WORDS = 8;
const TABLE_PAGES = 4096;
const TABLE_BITS = TABLE_PAGES * PAGE_BITS;
function popcount(word) {
    let bits = word - ((word >>> 1) & 0x55555555);
    bits = (bits & 0x33333333) + ((bits >>> 2) & 0x33333333);
    return Math.imul((bits + (bits >>> 4)) & 0x0f0f0f0f, 0x01010101) >>> 24;
}
/** Words behind the last that was ever set are not there: most nodes need a few only. */
class Page {
    words;
    count;
    constructor(words, count) {
        this.words = words;
        this.count = count;
    }
    static filled(value) {
        if (!value)
            return new Page(new Uint32Array(FIRST_WORDS), 0);
        return new Page(new Uint32Array(PAGE_WORDS).fill(0xffffffff), PAGE_BITS);
    }
    get(bit) {
        return (((this.words[bit >>> 5] ?? 0) >>> (bit & 31)) & 1) === 1;
    }
    fill({ from, to }, value) {
        for (let bit = from; bit < to;) {
            const word = bit >>> 5;
            const low = bit & 31;
            const bits = Math.min(32 - low, to - bit);
            const mask = bits === 32 ? 0xffffffff : ((1 << bits) - 1) << low;
            const before = this.words[word] ?? 0;
            this.#put(word, before, value ? before | mask : before & ~mask);
            bit += bits;
        }
    }
    merge({ words }) {
        for (let word = 0; word < words.length; word += 1) {
            const before = this.words[word] ?? 0;
            this.#put(word, before, before | (words[word] ?? 0));
        }
    }
    #put(word, before, after) {
        if (before === after >>> 0)
            return;
        if (word >= this.words.length)
            this.#grow(word);
        this.words[word] = after;
        this.count += popcount(after) - popcount(before);
    }
    #grow(word) {
        const grown = new Uint32Array(Math.min(PAGE_WORDS, Math.max(word + 1, 2 * this.words.length)));
        grown.set(this.words);
        this.words = grown;
    }
    next({ from, to }, value) {
        const flip = value ? 0 : 0xffffffff;
        let word = from >>> 5;
        let bits = (((this.words[word] ?? 0) ^ flip) & (0xffffffff << (from & 31))) >>> 0;
        while (bits === 0) {
            word += 1;
            if (word * 32 >= to)
                return to;
            bits = ((this.words[word] ?? 0) ^ flip) >>> 0;
        }
        return Math.min(word * 32 + (31 - Math.clz32(bits & -bits)), to);
    }
    clone() {
        return new Page(this.words.slice(), this.count);
    }
    /** Words are little-endian on every machine that Node runs on but s390x. */
    bytes() {
        const whole = new Uint32Array(PAGE_WORDS);
        whole.set(this.words);
        return new Uint8Array(whole.buffer);
    }
}
/** Parts of one size, each mixed, `dirty`, or absent: clean. */
class Level {
    #partBits;
    #filled;
    #parts = new Map();
    count = 0;
    /** `filled` makes a part with all of its bits alike. */
    constructor(partBits, filled) {
        this.#partBits = partBits;
        this.#filled = filled;
    }
    part(index) {
        return this.#parts.get(index);
    }
    get(bit) {
        const part = this.#parts.get(Math.floor(bit / this.#partBits));
        return typeof part === 'object' ? part.get(bit % this.#partBits) : part === 'dirty';
    }
    fill({ from, to }, value) {
        const bits = this.#partBits;
        for (let bit = from; bit < to;) {
            const index = Math.floor(bit / bits);
            const start = index * bits;
            this.#fillPart(index, { from: bit - start, to: Math.min(to - start, bits) }, value);
            bit = start + bits;
        }
    }
    #fillPart(index, range, value) {
        const part = this.#parts.get(index);
        if (part === (value ? 'dirty' : undefined))
            return;
        const before = this.#countOf(part);
        if (range.from === 0 && range.to === this.#partBits) {
            this.#put(index, value ? 'dirty' : undefined, before);
            return;
        }
        const mixed = typeof part === 'object' ? part : this.#filled(part === 'dirty');
        mixed.fill(range, value);
        this.#put(index, mixed, before);
    }
    /** `before`: how many bits of the part were set. */
    #put(index, part, before) {
        const count = this.#countOf(part);
        if (count === 0 || part === undefined)
            this.#parts.delete(index);
        else
            this.#parts.set(index, count === this.#partBits ? 'dirty' : part);
        this.count += count - before;
    }
    #countOf(part) {
        return typeof part === 'object' ? part.count : part === 'dirty' ? this.#partBits : 0;
    }
    next({ from, to }, value) {
        const bits = this.#partBits;
        for (let bit = from; bit < to;) {
            const index = Math.floor(bit / bits);
            const start = index * bits;
            const part = this.#parts.get(index);
            if (typeof part === 'object') {
                const end = Math.min(to - start, bits);
                const found = part.next({ from: bit - start, to: end }, value);
                if (found < end)
                    return start + found;
            }
            else if ((part === 'dirty') === value) {
                return bit;
            }
            bit = start + bits;
        }
        return to;
    }
    merge(other) {
        for (const [index, theirs] of other.#parts) {
            const part = this.#parts.get(index);
            const before = this.#countOf(part);
            if (typeof part === 'object' && theirs !== 'dirty') {
                part.merge(theirs);
                this.#put(index, part, before);
            }
            else if (part !== 'dirty') {
                this.#put(index, theirs === 'dirty' ? 'dirty' : theirs.clone(), before);
            }
        }
    }
    clone() {
        const copy = new Level(this.#partBits, this.#filled);
        for (const [index, part] of this.#parts) {
            copy.#parts.set(index, part === 'dirty' ? part : part.clone());
        }
        copy.count = this.count;
        return copy;
    }
}
function filledTable(value) {
    const table = new Level(PAGE_BITS, (filled) => Page.filled(filled));
    if (value)
        table.fill({ from: 0, to: TABLE_BITS }, true);
    return table;
}
export class BitPages {
    #size;
    #tables = new Level(TABLE_BITS, filledTable);
    /** `size` is the number of bits, all of them clear. */
    constructor(size) {
        this.#size = size;
    }
    get size() {
        return this.#size;
    }
    /** Number of bits that are set. */
    get count() {
        return this.#tables.count;
    }
    get(bit) {
        return this.#tables.get(bit);
    }
    /** Sets or clears bits [first, first + length) as far as they are there. */
    fill(first, length, value) {
        this.#tables.fill({ from: first, to: Math.min(first + length, this.#size) }, value);
    }
    /** The first bit with the value at or after `from` and before `limit`, or `limit`. */
    next(from, limit, value) {
        const to = Math.min(limit, this.#size);
        const found = this.#tables.next({ from, to }, value);
        return found < to ? found : limit;
    }
    /** The first run of set bits at or after `from`, cut at `limit`, or null. */
    nextRun(from, limit) {
        const end = Math.min(limit, this.#size);
        const first = this.next(from, end, true);
        if (first >= end)
            return null;
        return { first, length: this.next(first, end, false) - first };
    }
    /** Sets what is set in `other`, which is of the same size. */
    merge(other) {
        this.#tables.merge(other.#tables);
    }
    /** New bits are clear. */
    resize(size) {
        if (size < this.#size)
            this.fill(size, this.#size - size, false);
        this.#size = size;
    }
    /** The bits in order, the lowest of each byte first; bytes up to a multiple of 8, at least 8. */
    *parts() {
        const pageCount = Math.max(1, Math.ceil(this.#size / PAGE_BITS));
        const clean = new Uint8Array(PAGE_BYTES);
        const dirty = new Uint8Array(PAGE_BYTES).fill(0xff);
        for (let index = 0; index < pageCount; index += 1) {
            const bits = Math.min(PAGE_BITS, this.#size - index * PAGE_BITS);
            const bytes = Math.max(1, Math.ceil(bits / 64)) * 8;
            const page = this.#page(index);
            const all = page === 'dirty' ? dirty : page === undefined ? clean : page.bytes();
            yield all.subarray(0, bytes);
        }
    }
    #page(index) {
        const table = this.#tables.part(Math.floor(index / TABLE_PAGES));
        return typeof table === 'object' ? table.part(index % TABLE_PAGES) : table;
    }
    clone() {
        const copy = new BitPages(this.#size);
        copy.#tables = this.#tables.clone();
        return copy;
    }
}
