// SPDX-License-Identifier: Apache-2.0
// An open file of a simulated host. Each call takes effect at one moment, inline or later by seed.
import {} from '../../base/index.js';
import { FileBase } from '../file-base.js';
import { applyChange } from './simulated-volume.js';
export class MemoryFile extends FileBase {
    capabilities = {
        discard: true,
        writeZeroes: true,
        extents: true,
        locks: true,
    };
    descriptor = null;
    #node;
    #context;
    constructor(node, context, options) {
        super(options);
        this.#node = node;
        this.#context = context;
    }
    size() {
        return this.#node.store.size;
    }
    allocatedBytes() {
        return this.#node.store.allocatedBytes;
    }
    read(buffer, offset) {
        this.assertOpen();
        this.assertAligned(offset, buffer.length);
        return this.#context.scheduler.perform(() => {
            this.#throwIfDue('read');
            return this.#node.store.read(buffer, offset);
        });
    }
    write(buffer, offset) {
        this.assertAligned(offset, buffer.length);
        return this.#change('write', () => ({ kind: 'write', offset, bytes: buffer.slice() }));
    }
    writeZeroes(offset, length, _mayUnmap) {
        this.assertAligned(offset, length);
        return this.#change('write-zeroes', () => ({ kind: 'write-zeroes', offset, length }));
    }
    discard(offset, length) {
        this.assertAligned(offset, length);
        return this.#change('discard', () => ({ kind: 'discard', offset, length }));
    }
    extent(offset, length) {
        this.assertOpen();
        return this.#node.store.extent(offset, length);
    }
    truncate(size) {
        this.assertAligned(size, 0);
        return this.#change('truncate', () => ({ kind: 'truncate', size }));
    }
    syncHost() {
        const finish = this.#context.beginSync(this.#node);
        return this.#context.scheduler.later(() => {
            this.#throwIfDue('sync');
            finish();
        });
    }
    lockHost(next, held) {
        const isMore = (next.taken & ~held.taken) !== 0 || (next.unshared & ~held.unshared) !== 0;
        if (isMore)
            this.#throwIfDue('lock');
    }
    adoptHostLocks() { }
    closeHost() {
        return Promise.resolve();
    }
    #change(operation, describe) {
        this.assertWritable();
        return this.#context.scheduler.perform(() => {
            this.#throwIfDue(operation);
            const change = describe();
            this.#context.changing(this.#node);
            applyChange(this.#node.store, change);
            this.noteWrite();
            this.#context.changed(this.#node, change);
        });
    }
    #throwIfDue(operation) {
        const failure = this.#context.faults.next(operation, this.#node.path);
        if (failure !== null)
            throw failure;
    }
}
