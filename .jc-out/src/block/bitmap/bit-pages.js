// SPDX-License-Identifier: Apache-2.0
// Bits in two levels: pages of 32,768 bits (4 KiB), each absent when all its bits are equal.
//
// A page entry is `clean`, `dirty` or the bits themselves, so a terabyte at 512 bytes granularity
// costs 64 Ki entries until it is touched. Bits past `size` are always clear. The number of set
// bits is kept at all times.
const PAGE_BITS = 32_768;
const PAGE_WORDS = PAGE_BITS / 32;
function popcount(word) {
    let bits = word - ((word >>> 1) & 0x55555555);
    bits = (bits & 0x33333333) + ((bits >>> 2) & 0x33333333);
    return Math.imul((bits + (bits >>> 4)) & 0x0f0f0f0f, 0x01010101) >>> 24;
}
export class BitPages {
    #size;
    /** Absent: clean. */
    #pages = new Map();
    #count = 0;
    /** `size` is the number of bits. */
    constructor(size) {
        this.#size = size;
    }
    get size() {
        return this.#size;
    }
    /** Number of bits that are set. */
    get count() {
        return this.#count;
    }
    get(bit) {
        const page = this.#pages.get(Math.floor(bit / PAGE_BITS));
        if (page === undefined)
            return false;
        if (page === 'dirty')
            return bit < this.#size;
        const at = bit % PAGE_BITS;
        return (((page[at >>> 5] ?? 0) >>> (at & 31)) & 1) === 1;
    }
    /** Sets or clears bits [first, first + length). */
    fill(first, length, value) {
        const end = Math.min(first + length, this.#size);
        let bit = first;
        while (bit < end) {
            const index = Math.floor(bit / PAGE_BITS);
            const from = bit - index * PAGE_BITS;
            const to = Math.min(end - index * PAGE_BITS, PAGE_BITS);
            this.#fillPage(index, { from, to }, value);
            bit = index * PAGE_BITS + to;
        }
    }
    #fillPage(index, range, value) {
        const { from, to } = range;
        const page = this.#pages.get(index);
        if (page === undefined ? !value : page === 'dirty' && value)
            return;
        const pageSize = this.#pageSize(index);
        if (from === 0 && to === pageSize) {
            this.#count += (value ? pageSize : 0) - this.#pageCount(index);
            if (value)
                this.#pages.set(index, 'dirty');
            else
                this.#pages.delete(index);
            return;
        }
        const words = page instanceof Uint32Array ? page : this.#materialise(index);
        for (let bit = from; bit < to;) {
            const word = bit >>> 5;
            const low = bit & 31;
            const bits = Math.min(32 - low, to - bit);
            const mask = (bits === 32 ? 0xffffffff : ((1 << bits) - 1) << low) >>> 0;
            const before = words[word] ?? 0;
            const after = (value ? before | mask : before & ~mask) >>> 0;
            words[word] = after;
            this.#count += popcount(after) - popcount(before);
            bit += bits;
        }
    }
    #pageSize(index) {
        return Math.min(PAGE_BITS, this.#size - index * PAGE_BITS);
    }
    #pageCount(index) {
        const page = this.#pages.get(index);
        if (page === undefined)
            return 0;
        if (page === 'dirty')
            return this.#pageSize(index);
        return page.reduce((sum, word) => sum + popcount(word), 0);
    }
    #materialise(index) {
        const words = this.#wordsOf(index);
        this.#pages.set(index, words);
        return words;
    }
    /** The words of a page that has none of its own. */
    #wordsOf(index) {
        const words = new Uint32Array(PAGE_WORDS);
        if (this.#pages.get(index) === 'dirty') {
            const size = this.#pageSize(index);
            words.fill(0xffffffff, 0, size >>> 5);
            if ((size & 31) !== 0)
                words[size >>> 5] = ((1 << (size & 31)) - 1) >>> 0;
        }
        return words;
    }
    /** The first bit with the value at or after `from` and before `limit`, or `limit`. */
    next(from, limit, value) {
        const end = Math.min(limit, this.#size);
        let bit = from;
        while (bit < end) {
            const index = Math.floor(bit / PAGE_BITS);
            const pageStart = index * PAGE_BITS;
            const page = this.#pages.get(index);
            if (page instanceof Uint32Array) {
                const found = scanPage(page, bit - pageStart, value);
                if (found < PAGE_BITS)
                    return Math.min(pageStart + found, limit);
            }
            else if ((page === 'dirty') === value) {
                return bit;
            }
            bit = pageStart + PAGE_BITS;
        }
        return limit;
    }
    /** The first run of set bits at or after `from`, cut at `limit`, or null. */
    nextRun(from, limit) {
        const end = Math.min(limit, this.#size);
        const first = this.next(from, end, true);
        if (first >= end)
            return null;
        return { first, length: this.next(first, end, false) - first };
    }
    /** Bits set in both stay, bits set in either are set. */
    merge(other) {
        for (let run = other.nextRun(0, other.size); run !== null;) {
            this.fill(run.first, run.length, true);
            run = other.nextRun(run.first + run.length, other.size);
        }
    }
    /** New bits are `value`. */
    resize(size, value) {
        const before = this.#size;
        if (size < before) {
            this.fill(size, before - size, false);
            this.#unfoldLast(size);
        }
        else {
            this.#unfoldLast(before);
        }
        this.#size = size;
        if (value && size > before)
            this.fill(before, size - before, true);
    }
    /** `dirty` means every bit up to the page's end, which moves when the size does. */
    #unfoldLast(size) {
        const index = Math.floor(size / PAGE_BITS);
        if (size % PAGE_BITS !== 0 && this.#pages.get(index) === 'dirty')
            this.#materialise(index);
    }
    /** The bits in order, the lowest of each byte first; bytes up to a multiple of 8, at least 8. */
    *parts() {
        const pageCount = Math.max(1, Math.ceil(this.#size / PAGE_BITS));
        const clean = new Uint8Array(PAGE_BITS / 8);
        for (let index = 0; index < pageCount; index += 1) {
            const bytes = Math.max(1, Math.ceil(Math.max(0, this.#pageSize(index)) / 64)) * 8;
            yield this.#pageBytes(index, clean).subarray(0, bytes);
        }
    }
    #pageBytes(index, clean) {
        const page = this.#pages.get(index);
        if (page === undefined)
            return clean;
        const words = page === 'dirty' ? this.#wordsOf(index) : page;
        // Words are little-endian on every machine that Node runs on but s390x.
        return new Uint8Array(words.buffer, words.byteOffset, words.byteLength);
    }
    clone() {
        const copy = new BitPages(this.#size);
        copy.#count = this.#count;
        copy.#pages = new Map([...this.#pages].map(([index, page]) => [index, page === 'dirty' ? page : page.slice()]));
        return copy;
    }
}
function scanPage(page, from, value) {
    const flip = value ? 0 : 0xffffffff;
    let word = from >>> 5;
    let bits = (((page[word] ?? 0) ^ flip) & (0xffffffff << (from & 31))) >>> 0;
    while (bits === 0) {
        word += 1;
        if (word >= PAGE_WORDS)
            return PAGE_BITS;
        bits = ((page[word] ?? 0) ^ flip) >>> 0;
    }
    return word * 32 + (31 - Math.clz32(bits & -bits));
}
