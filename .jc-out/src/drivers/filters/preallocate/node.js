// SPDX-License-Identifier: Apache-2.0
// Keeps a file longer than its data while it may be written and resized, and cuts it afterwards.
//
// `dataEnd` is where the data end, as the node's users know it; the file is longer by what is
// preallocated, up to `fileEnd`. Both are kept only while the node's users hold the permissions to
// write and to resize, and nobody else may have these meanwhile. When they are given up, the file
// is cut off at the end of the data before its own permissions go; closing and reopening wait for
// that. Preallocation is a favour: a file system that refuses it only loses us the benefit.
import { MAX_OFFSET, Permission, settle, } from '../../../base/index.js';
const SECTOR_BYTES = 512;
const GROWING = Permission.write | Permission.resize;
export class PreallocateNode {
    reopen;
    #parts;
    /** Null while the permissions are missing. */
    #ends = null;
    #mayGrow = false;
    /** Preallocation or its removal on its way; never fails. */
    #busy = null;
    constructor(parts) {
        this.#parts = parts;
        this.reopen = parts.reopen;
    }
    get #file() {
        return this.#parts.file.node;
    }
    get length() {
        const end = this.#ends?.dataEnd;
        return end === undefined ? this.#file.length : roundUp(end, SECTOR_BYTES);
    }
    get limits() {
        return this.#file.limits;
    }
    get growsOnWrite() {
        return this.#file.driverNode.growsOnWrite === true;
    }
    get settling() {
        return this.#busy;
    }
    childPermissions(_child, parents) {
        const { shared } = parents;
        if (!mayGrow(parents.taken) && !this.#hasExcess)
            return parents;
        return { taken: parents.taken | GROWING, shared: shared & ~GROWING };
    }
    setPermissions({ taken }) {
        this.#mayGrow = mayGrow(taken);
        if (!this.#mayGrow)
            this.#giveUp();
        else if (this.#ends === null) {
            const end = this.#file.length;
            this.#ends = { dataEnd: end, fileEnd: end };
        }
    }
    write(request) {
        const end = request.offset + request.length;
        if (this.#ends === null || end <= this.#ends.dataEnd)
            return this.#file.write(request);
        return settle(this.#growTo(end), () => settle(this.#file.write(request), () => this.#noteEnd(end)));
    }
    reserve(offset, length) {
        const end = offset + length;
        if (this.#ends === null || end <= this.#ends.dataEnd)
            return this.#file.reserve(offset, length);
        return settle(this.#growTo(end), () => settle(this.#file.reserve(offset, length), (reservation) => {
            if (reservation !== null)
                this.#noteEnd(end);
            return reservation;
        }));
    }
    truncate(size, options) {
        if (this.#busy !== null)
            return this.#busy.then(() => this.truncate(size, options));
        const ends = this.#ends;
        if (ends === null)
            return this.#file.truncate(size, options);
        if (size > ends.dataEnd && size <= ends.fileEnd && options.preallocation === 'falloc') {
            ends.dataEnd = size;
            return undefined;
        }
        // What was preallocated is not what was asked for; the new part reads as zeroes either way.
        const cut = ends.fileEnd > ends.dataEnd ? this.#cut(ends) : undefined;
        return settle(cut, () => settle(this.#file.truncate(size, options), () => {
            ends.dataEnd = size;
            ends.fileEnd = size;
        }));
    }
    async prepareReadOnly() {
        while (this.#busy !== null)
            await this.#busy;
        if (this.#ends !== null && this.#hasExcess)
            await this.#cut(this.#ends);
    }
    takeOver(old) {
        if (!(old instanceof PreallocateNode))
            return;
        this.#ends = old.#ends;
        this.#mayGrow = old.#mayGrow;
    }
    async close() {
        while (this.#busy !== null)
            await this.#busy;
    }
    get #hasExcess() {
        return this.#ends !== null && this.#ends.fileEnd > this.#ends.dataEnd;
    }
    #noteEnd(end) {
        if (this.#ends === null)
            return;
        this.#ends.dataEnd = Math.max(this.#ends.dataEnd, end);
        this.#ends.fileEnd = Math.max(this.#ends.fileEnd, end);
    }
    /** Makes room for a write that ends there, and more. Never fails. */
    #growTo(end) {
        if (this.#busy !== null)
            return this.#busy.then(() => this.#growTo(end));
        const ends = this.#ends;
        if (ends === null || end <= ends.fileEnd)
            return undefined;
        const { align, size } = this.#parts.preallocation;
        const target = roundUp(end + size, align);
        const file = this.#file;
        if (target > MAX_OFFSET || !canPreallocate(file))
            return undefined;
        const goal = Math.max(target, file.length);
        return this.#alone(() => file.truncate(goal, { exact: true, preallocation: 'falloc' }), (failed) => {
            // A file system without room lets the write itself go as far as it can.
            ends.fileEnd = failed ? Math.max(ends.fileEnd, end) : goal;
        });
    }
    /** The permissions are gone, but those on the file stay until it is as long as its data. */
    #giveUp() {
        const ends = this.#ends;
        if (ends === null || this.#busy !== null)
            return;
        if (ends.fileEnd <= ends.dataEnd) {
            this.#ends = null;
            return;
        }
        // In a turn of its own, for this one is in the middle of changing permissions.
        this.#busy = Promise.resolve()
            .then(() => this.#cut(ends))
            .then(() => this.#gaveUp(), 
        // Tried again when the node is closed; until then the length stays that of the data.
        () => {
            this.#busy = null;
        });
    }
    #gaveUp() {
        this.#busy = null;
        if (this.#mayGrow)
            return;
        this.#ends = null;
        this.#parts.context.permissionsChanged?.();
    }
    #cut(ends) {
        const options = { exact: true, preallocation: 'off' };
        return settle(this.#file.truncate(ends.dataEnd, options), () => {
            ends.fileEnd = ends.dataEnd;
        });
    }
    /** Runs `work` with nothing else of its kind; its failure is told to `done` alone. */
    #alone(work, done) {
        let result;
        try {
            result = work();
        }
        catch {
            return done(true);
        }
        if (!(result instanceof Promise))
            return done(false);
        const end = (failed) => {
            this.#busy = null;
            done(failed);
            if (!this.#mayGrow)
                this.#giveUp();
        };
        const busy = result.then(() => end(false), () => end(true));
        this.#busy = busy;
        return busy;
    }
}
function mayGrow(taken) {
    return (taken & GROWING) === GROWING;
}
function roundUp(bytes, unit) {
    return Math.ceil(bytes / unit) * unit;
}
/** Only where it costs no writing of zeroes. */
function canPreallocate(file) {
    let at = file;
    while (at !== null && at.driverNode.hostFile === undefined)
        at = at.primary ?? at.filtered;
    const host = at?.driverNode.hostFile;
    return host?.kind === 'file' && host.capabilities.writeZeroes;
}
