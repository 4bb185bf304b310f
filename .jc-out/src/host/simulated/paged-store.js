// SPDX-License-Identifier: Apache-2.0
// The bytes of one simulated file: sparse pages that copies share until one of them writes.
//
// An absent page reads as zeroes, so a file of a tebibyte costs nothing until it is written.
// clone() copies only the page table; both sides then copy a page before they change it. No loop
// runs over the pages of a range, only over those of the range that exist.
const PAGE_BYTES = 16 * 1024;
export class PagedStore {
    #pages = new Map();
    #token = {};
    #size = 0;
    get size() {
        return this.#size;
    }
    /** Bytes of the pages that exist. */
    get allocatedBytes() {
        return this.#pages.size * PAGE_BYTES;
    }
    clone() {
        const copy = new PagedStore();
        copy.#pages = new Map(this.#pages);
        copy.#size = this.#size;
        this.#token = {};
        return copy;
    }
    /** Gives the bytes read: fewer than asked only at the end. */
    read(buffer, offset) {
        const length = Math.max(0, Math.min(buffer.length, this.#size - offset));
        for (let done = 0; done < length;) {
            const at = offset + done;
            const within = at % PAGE_BYTES;
            const step = Math.min(PAGE_BYTES - within, length - done);
            const page = this.#pages.get(Math.floor(at / PAGE_BYTES));
            if (page === undefined)
                buffer.fill(0, done, done + step);
            else
                buffer.set(page.bytes.subarray(within, within + step), done);
            done += step;
        }
        return length;
    }
    write(buffer, offset) {
        for (let done = 0; done < buffer.length;) {
            const at = offset + done;
            const within = at % PAGE_BYTES;
            const step = Math.min(PAGE_BYTES - within, buffer.length - done);
            const page = this.#ownedPage(Math.floor(at / PAGE_BYTES));
            page.set(buffer.subarray(done, done + step), within);
            done += step;
        }
        if (buffer.length > 0)
            this.#size = Math.max(this.#size, offset + buffer.length);
    }
    /** Zeroes a range; whole pages become holes. Grows the file only when `grow` is set. */
    zero(offset, length, grow) {
        const end = offset + length;
        if (grow)
            this.#size = Math.max(this.#size, end);
        const first = Math.floor(offset / PAGE_BYTES);
        const last = Math.ceil(end / PAGE_BYTES);
        if (last - first <= this.#pages.size) {
            for (let index = first; index < last; index += 1)
                this.#zeroPage(index, offset, end);
        }
        else {
            for (const index of this.#pages.keys()) {
                if (index >= first && index < last)
                    this.#zeroPage(index, offset, end);
            }
        }
    }
    truncate(size) {
        if (size < this.#size)
            this.zero(size, this.#size - size, false);
        this.#size = size;
    }
    extent(offset, length) {
        const end = Math.min(this.#size, offset + length);
        if (offset >= end)
            return { kind: 'hole', length: 0 };
        let index = Math.floor(offset / PAGE_BYTES);
        if (this.#pages.has(index)) {
            while (index * PAGE_BYTES < end && this.#pages.has(index))
                index += 1;
            return { kind: 'data', length: Math.min(end, index * PAGE_BYTES) - offset };
        }
        let next = Infinity;
        for (const present of this.#pages.keys()) {
            if (present > index && present < next)
                next = present;
        }
        return { kind: 'hole', length: Math.min(end, next * PAGE_BYTES) - offset };
    }
    #ownedPage(index) {
        const page = this.#pages.get(index);
        if (page !== undefined && page.owner === this.#token)
            return page.bytes;
        const bytes = page === undefined ? new Uint8Array(PAGE_BYTES) : page.bytes.slice();
        this.#pages.set(index, { bytes, owner: this.#token });
        return bytes;
    }
    #zeroPage(index, offset, end) {
        if (!this.#pages.has(index))
            return;
        const start = index * PAGE_BYTES;
        const from = Math.max(0, offset - start);
        const to = Math.min(PAGE_BYTES, end - start);
        if (from === 0 && to === PAGE_BYTES)
            this.#pages.delete(index);
        else
            this.#ownedPage(index).fill(0, from, to);
    }
}
