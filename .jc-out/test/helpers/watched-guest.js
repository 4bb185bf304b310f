// SPDX-License-Identifier: Apache-2.0
// A guest that knows, sector by sector, what it must read: what it was told is written, what is
// under way or has failed (it may read as either), and what a flush has not covered yet.
import { Permission } from '../../src/base/index.js';
import { readAll } from './job-stage.js';
export const SECTOR = 512;
export class WatchedGuest {
    backend;
    #expected;
    /** Per sector: a write is under way or has failed. */
    #doubtful;
    /** Per sector: written since the last flush. */
    #unflushed;
    /** Something is under way. */
    busy = false;
    /** What it was refused, or what failed under it. */
    failures = [];
    constructor(backend, expected) {
        this.backend = backend;
        this.#expected = expected;
        this.#doubtful = new Uint8Array(expected.length / SECTOR);
        this.#unflushed = new Uint8Array(expected.length / SECTOR);
    }
    static async attach(graph, node) {
        const backend = await graph.attach(node, 'guest', {
            taken: Permission.consistentRead | Permission.write,
            shared: Permission.all & ~Permission.resize,
        });
        return new WatchedGuest(backend, await readAll(node));
    }
    /** What is read as long as the program lives. */
    get view() {
        return { bytes: this.#expected.slice(), open: this.#doubtful.slice() };
    }
    /** What is found when the program is gone this moment. */
    get kept() {
        const open = this.#doubtful.map((doubt, at) => doubt | (this.#unflushed[at] ?? 0));
        return { bytes: this.#expected.slice(), open };
    }
    /** One random write, zeroing, read or flush; a failure of it is the guest's to bear. */
    async act(random) {
        if (this.busy)
            return;
        this.busy = true;
        try {
            await this.#act(random);
        }
        finally {
            this.busy = false;
        }
    }
    async #act(random) {
        const { length } = this.#expected;
        const offset = random.below(length / SECTOR) * SECTOR;
        const size = Math.min(length - offset, (1 + random.below(200)) * SECTOR);
        const choice = random.below(10);
        if (choice < 5) {
            const bytes = new Uint8Array(size).fill(1 + random.below(255));
            await this.#change(offset, bytes, () => this.backend.write(offset, bytes));
        }
        else if (choice < 7) {
            const zeroes = new Uint8Array(size);
            await this.#change(offset, zeroes, () => this.backend.writeZeroes(offset, size));
        }
        else if (choice < 8) {
            await this.flush();
        }
        else {
            await this.#read(offset, size);
        }
    }
    async flush() {
        try {
            await this.backend.flush();
            this.#unflushed.fill(0);
        }
        catch (error) {
            this.failures.push(error);
        }
    }
    async #change(offset, bytes, change) {
        const [from, to] = [offset / SECTOR, (offset + bytes.length) / SECTOR];
        this.#doubtful.fill(1, from, to);
        this.#unflushed.fill(1, from, to);
        try {
            await change();
        }
        catch (error) {
            this.failures.push(error);
            return;
        }
        this.#expected.set(bytes, offset);
        this.#doubtful.fill(0, from, to);
    }
    async #read(offset, size) {
        const bytes = new Uint8Array(size);
        const promised = this.view;
        try {
            await this.backend.read(offset, bytes);
        }
        catch (error) {
            this.failures.push(error);
            return;
        }
        const wrong = brokenAt({ bytes: promised.bytes.subarray(offset), open: promised.open.subarray(offset / SECTOR) }, bytes);
        if (wrong >= 0)
            throw new Error(`the guest reads other bytes at ${offset + wrong}`);
    }
}
/** Offset of the first sector of `found` that is not as promised; −1 when all is. */
export function brokenAt({ bytes, open }, found) {
    for (let at = 0; at < found.length; at += SECTOR) {
        if (open[at / SECTOR] !== 0)
            continue;
        const same = Buffer.from(found.buffer, found.byteOffset + at, SECTOR).equals(bytes.subarray(at, at + SECTOR));
        if (!same)
            return at;
    }
    return -1;
}
