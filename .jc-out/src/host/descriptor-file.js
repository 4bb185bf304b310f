// SPDX-License-Identifier: Apache-2.0
// What the native and the portable host share: an open file behind a descriptor.
//
// Transfers up to IO_LIMITS.inlineBytes run inline on buffered files. A write that took longer
// than IO_LIMITS.slowWriteMs sends the file's writes to the thread pool for a while. Flushes,
// O_DIRECT transfers and whatever the subclass cannot do at once always go there, and hold the
// descriptor meanwhile. A direct transfer whose buffer is not aligned goes through a slab.
import { close, closeSync, fdatasync, fstatSync, ftruncate, openSync, read, write, } from 'node:fs';
import { BlockError, IO_LIMITS, settleFinally, toBlockError, } from '../base/index.js';
import { bufferPool, isAlignedBuffer, SLAB_BYTES } from './buffer-pool.js';
import { FileBase } from './file-base.js';
/** Given by readNow() when it would have to wait. */
export const NOT_NOW = -1;
/** Node refuses to transfer 2 GiB or more in one call. */
const CALL_BYTES = 2 ** 30;
export class DescriptorFile extends FileBase {
    descriptor;
    direct;
    #deviceSize;
    #clock;
    #newIn;
    #slowUntil = 0;
    /** Size at the last look; null after anything that may have changed it. */
    #knownSize = null;
    constructor(options) {
        super(options);
        this.descriptor = options.descriptor;
        this.direct = options.direct;
        this.#deviceSize = options.deviceSize;
        this.#clock = options.clock;
        this.#newIn = options.newIn ?? null;
    }
    size() {
        this.assertOpen();
        if (this.#deviceSize !== null)
            return this.#deviceSize;
        this.#knownSize ??= this.fileSize();
        return this.#knownSize;
    }
    allocatedBytes() {
        this.assertOpen();
        return fstatSync(this.descriptor).blocks * 512;
    }
    noteWrite() {
        super.noteWrite();
        this.#knownSize = null;
    }
    read(buffer, offset) {
        this.assertOpen();
        this.assertAligned(offset, buffer.length);
        if (!this.direct && buffer.length <= IO_LIMITS.inlineBytes) {
            try {
                const count = this.readNow(buffer, offset);
                if (count !== NOT_NOW)
                    return count;
            }
            catch (error) {
                throw this.failure(error, 'read', offset);
            }
        }
        return this.#readLater(buffer, offset);
    }
    write(buffer, offset) {
        this.assertWritable();
        this.assertAligned(offset, buffer.length);
        if (this.direct || buffer.length > IO_LIMITS.inlineBytes || this.#isSlow()) {
            return this.#writeLater(buffer, offset);
        }
        const begun = this.#clock.now();
        try {
            this.writeNow(buffer, offset);
        }
        catch (error) {
            throw this.failure(error, 'write', offset);
        }
        finally {
            const within = this.#knownSize !== null && offset + buffer.length <= this.#knownSize;
            if (within)
                super.noteWrite();
            else
                this.noteWrite();
        }
        const now = this.#clock.now();
        if (now - begun > IO_LIMITS.slowWriteMs)
            this.#slowUntil = now + IO_LIMITS.slowWritePenaltyMs;
        return undefined;
    }
    writeZeroes(offset, _length, _mayUnmap) {
        this.assertWritable();
        throw new BlockError('unsupported', `'${this.path}' cannot write zeroes without data`, {
            path: this.path,
            offset,
        });
    }
    discard(_offset, _length) {
        this.assertWritable();
    }
    extent(offset, length) {
        const end = Math.min(this.size(), offset + length);
        return offset >= end
            ? { kind: 'hole', length: 0 }
            : { kind: 'data', length: end - offset };
    }
    truncate(size, preallocation = 'off') {
        this.assertWritable();
        return this.inFlight(() => this.#resize(size, preallocation));
    }
    /** Runs an operation that may outlast the call: it holds the descriptor and counts as a write. */
    inFlight(start) {
        this.hold();
        return settleFinally(start, () => {
            this.noteWrite();
            this.release();
        });
    }
    /** Present size of a regular file in bytes. */
    fileSize() {
        return fstatSync(this.descriptor).size;
    }
    failure(error, operation, offset) {
        return toBlockError(error, {
            path: this.path,
            operation,
            ...(offset === undefined ? {} : { offset }),
        });
    }
    async syncHost() {
        await syncDescriptor(this.descriptor);
        if (this.#newIn === null)
            return;
        const folder = openFolder(this.#newIn);
        this.#newIn = null;
        if (folder === null)
            return;
        try {
            await syncDescriptor(folder);
        }
        finally {
            closeSync(folder);
        }
    }
    closeHost() {
        return new Promise((resolve, reject) => {
            close(this.descriptor, (error) => {
                if (error === null || error === undefined)
                    resolve();
                else
                    reject(this.failure(error, 'close'));
            });
        });
    }
    #isSlow() {
        if (this.#slowUntil === 0)
            return false;
        if (this.#clock.now() < this.#slowUntil)
            return true;
        this.#slowUntil = 0;
        return false;
    }
    async #readLater(buffer, offset) {
        this.hold();
        try {
            if (!this.direct || isAlignedBuffer(buffer, this.alignment)) {
                return await readAll(this.descriptor, buffer, offset);
            }
            return await this.#readThroughSlab(buffer, offset);
        }
        catch (error) {
            throw this.failure(error, 'read', offset);
        }
        finally {
            this.release();
        }
    }
    async #writeLater(buffer, offset) {
        this.hold();
        try {
            if (!this.direct || isAlignedBuffer(buffer, this.alignment)) {
                await writeAll(this.descriptor, buffer, offset);
            }
            else {
                await this.#writeThroughSlab(buffer, offset);
            }
        }
        catch (error) {
            throw this.failure(error, 'write', offset);
        }
        finally {
            this.noteWrite();
            this.release();
        }
    }
    async #readThroughSlab(buffer, offset) {
        const slab = bufferPool.take();
        try {
            let done = 0;
            while (done < buffer.length) {
                const part = slab.subarray(0, Math.min(SLAB_BYTES, buffer.length - done));
                const count = await readAll(this.descriptor, part, offset + done);
                buffer.set(part.subarray(0, count), done);
                done += count;
                if (count < part.length)
                    break;
            }
            return done;
        }
        finally {
            bufferPool.give(slab);
        }
    }
    async #writeThroughSlab(buffer, offset) {
        const slab = bufferPool.take();
        try {
            for (let done = 0; done < buffer.length; done += SLAB_BYTES) {
                const part = slab.subarray(0, Math.min(SLAB_BYTES, buffer.length - done));
                part.set(buffer.subarray(done, done + part.length));
                await writeAll(this.descriptor, part, offset + done);
            }
        }
        finally {
            bufferPool.give(slab);
        }
    }
    async #resize(size, preallocation) {
        const { path } = this;
        const old = this.size();
        if (this.#deviceSize !== null) {
            if (size <= old)
                return;
            throw new BlockError('invalid-option', 'Cannot grow device files', { path });
        }
        if (size < old && preallocation !== 'off') {
            throw new BlockError('invalid-option', "Preallocation can't be used for shrinking files", {
                path,
            });
        }
        await this.#setSize(size);
        if (size === old || preallocation === 'off')
            return;
        try {
            const reserved = preallocation === 'falloc' && (await this.reserve(old, size - old));
            if (!reserved)
                await this.#fill(old, size);
        }
        catch (error) {
            await this.#setSize(old);
            throw this.failure(error, 'truncate', old);
        }
    }
    #setSize(size) {
        return new Promise((resolve, reject) => {
            ftruncate(this.descriptor, size, (error) => {
                if (error === null)
                    resolve();
                else
                    reject(this.failure(error, 'truncate', size));
            });
        });
    }
    /** Writes zeroes over a range that has no contents yet. */
    async #fill(start, end) {
        const slab = bufferPool.take();
        try {
            // A direct file is written in whole units: the unit that holds the old end keeps its bytes,
            // and what the last unit puts past the new end is cut off again.
            const { alignment } = this;
            let at = start - (start % alignment);
            slab.fill(0);
            if (at < start)
                await readAll(this.descriptor, slab.subarray(0, alignment), at);
            while (at < end) {
                const wanted = Math.ceil((end - at) / alignment) * alignment;
                const part = slab.subarray(0, Math.min(SLAB_BYTES, wanted));
                await writeAll(this.descriptor, part, at);
                slab.fill(0, 0, alignment);
                at += part.length;
            }
            if (at > end)
                await this.#setSize(end);
        }
        finally {
            bufferPool.give(slab);
        }
    }
}
/** Reads until the buffer is full or the file ends; gives the bytes read. */
async function readAll(descriptor, buffer, offset) {
    let done = 0;
    while (done < buffer.length) {
        const part = done === 0 ? buffer : buffer.subarray(done);
        const count = await readSome(descriptor, part, offset + done);
        if (count === 0)
            break;
        done += count;
    }
    return done;
}
async function writeAll(descriptor, buffer, offset) {
    let done = 0;
    while (done < buffer.length) {
        done += await writeSome(descriptor, done === 0 ? buffer : buffer.subarray(done), offset + done);
    }
}
function readSome(descriptor, buffer, offset) {
    return new Promise((resolve, reject) => {
        const length = Math.min(buffer.length, CALL_BYTES);
        read(descriptor, buffer, 0, length, offset, (error, count) => error === null ? resolve(count) : reject(error));
    });
}
function writeSome(descriptor, buffer, offset) {
    return new Promise((resolve, reject) => {
        const length = Math.min(buffer.length, CALL_BYTES);
        write(descriptor, buffer, 0, length, offset, (error, count) => error === null ? resolve(count) : reject(error));
    });
}
function syncDescriptor(descriptor) {
    return new Promise((resolve, reject) => {
        fdatasync(descriptor, (error) => (error === null ? resolve() : reject(error)));
    });
}
/** Null for a folder that may be written to and not read: its names cannot be synced. */
function openFolder(path) {
    try {
        return openSync(path, 'r');
    }
    catch (error) {
        if (toBlockError(error).kind === 'access-denied')
            return null;
        throw error;
    }
}
