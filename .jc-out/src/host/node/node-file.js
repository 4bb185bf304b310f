// SPDX-License-Identifier: Apache-2.0
// A file with Node's own calls only: no discard, no holes, no zeroing without data.
//
// Locks cannot be set. A live QEMU is still found, in the list of locks that the kernel keeps,
// and refused by the same rules; other processes do not see this one.
import { DescriptorFile } from '../descriptor-file.js';
import { readDescriptor, writeDescriptor } from '../descriptor-io.js';
import { findConflict } from '../file-locks.js';
import { lockConflict } from '../locks/lock-table.js';
import { declaredLocks, holderOf } from '../locks/proc-locks.js';
const CAPABILITIES = {
    discard: false,
    writeZeroes: false,
    extents: false,
    locks: false,
};
export class NodeFile extends DescriptorFile {
    capabilities = CAPABILITIES;
    readNow(buffer, offset) {
        return readDescriptor(this.descriptor, buffer, offset);
    }
    writeNow(buffer, offset) {
        writeDescriptor(this.descriptor, buffer, offset);
    }
    reserve() {
        return Promise.resolve(false);
    }
    adoptHostLocks() { }
    lockHost(next) {
        if (next.taken === 0 && next.unshared === 0)
            return;
        const declared = declaredLocks(this.identity);
        const conflict = declared === null ? null : findConflict(next, declared);
        if (conflict !== null)
            throw lockConflict(conflict, this.path, holderOf(this.identity, next));
    }
}
