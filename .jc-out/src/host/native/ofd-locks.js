// SPDX-License-Identifier: Apache-2.0
// Byte locks that running QEMU processes see, by open file description (F_OFD_SETLK).
//
// Only shared locks are set; conflicts are found by testing for what an exclusive lock would meet.
// Order: own new bytes first, then the test, then the release of bytes that are no longer wanted.
// A conflict takes the new bytes back and leaves the old ones; fewer bytes are never refused. Where
// the file system has no such locks the file goes without.
import { constants } from 'node:os';
import { BlockError, PERMISSION_NAMES } from '../../base/index.js';
import { TAKEN_BASE, UNSHARED_BASE } from '../file-locks.js';
import { lockConflict } from '../locks/lock-table.js';
import { holderOf } from '../locks/proc-locks.js';
const { EACCES, EAGAIN } = constants.errno;
export class OfdLocks {
    #addon;
    #descriptor;
    #path;
    #identity;
    #unavailable = false;
    constructor(addon, file) {
        this.#addon = addon;
        this.#descriptor = file.descriptor;
        this.#path = file.path;
        this.#identity = file.identity;
    }
    /** False once the file system turned out to have no such locks. */
    get available() {
        return !this.#unavailable;
    }
    /** Replaces `held` by `next`; throws kind `locked` and keeps `held` on a conflict. */
    change(next, held) {
        if (this.#unavailable)
            return;
        const { taken, unshared } = next;
        const added = { taken: taken & ~held.taken, unshared: unshared & ~held.unshared };
        if (!this.#set(added))
            return;
        // With nothing to add there is nothing to refuse: what others hold now they are testing.
        const isMore = added.taken !== 0 || added.unshared !== 0;
        const conflict = isMore ? this.#conflict(next) : null;
        if (conflict !== null) {
            this.#clear(added);
            throw lockConflict(conflict, this.#path, holderOf(this.#identity, next));
        }
        this.#clear({ taken: held.taken & ~taken, unshared: held.unshared & ~unshared });
    }
    /** Sets the bytes of `request`, which another description of this program holds as well. */
    adopt(request) {
        if (!this.#unavailable)
            this.#set(request);
    }
    #conflict(wanted) {
        for (let bit = 0; bit < PERMISSION_NAMES.length; bit += 1) {
            const permission = PERMISSION_NAMES[bit] ?? '';
            const isTaken = (wanted.taken & (1 << bit)) !== 0;
            const isUnshared = (wanted.unshared & (1 << bit)) !== 0;
            if (isTaken && this.#isHeld(UNSHARED_BASE + bit))
                return { permission, shared: false };
            if (isUnshared && this.#isHeld(TAKEN_BASE + bit))
                return { permission, shared: true };
        }
        return null;
    }
    #isHeld(byte) {
        return this.#addon.testLock(this.#descriptor, byte, 1) === 1;
    }
    /** False when there are no such locks here; throws when a byte is locked exclusively. */
    #set(request) {
        for (const byte of bytesOf(request)) {
            const result = this.#addon.lockShared(this.#descriptor, byte, 1);
            if (result === 0)
                continue;
            this.#clear(request);
            if (result === -EAGAIN || result === -EACCES) {
                throw new BlockError('locked', `Failed to lock byte ${byte}`, {
                    path: this.#path,
                    hint: `Is another process using the image [${this.#path}]?`,
                });
            }
            this.#unavailable = true;
            return false;
        }
        return true;
    }
    #clear(request) {
        for (const byte of bytesOf(request))
            this.#addon.unlock(this.#descriptor, byte, 1);
    }
}
function bytesOf(request) {
    const bytes = [];
    for (let bit = 0; bit < PERMISSION_NAMES.length; bit += 1) {
        if (request.taken & (1 << bit))
            bytes.push(TAKEN_BASE + bit);
        if (request.unshared & (1 << bit))
            bytes.push(UNSHARED_BASE + bit);
    }
    return bytes;
}
