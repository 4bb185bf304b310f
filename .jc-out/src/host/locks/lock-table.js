// SPDX-License-Identifier: Apache-2.0
// The in-process table of file locks, consulted before the locks of the operating system.
//
// It keeps two opens of one file in this process apart by the same byte rules that other processes
// see, in the simulated host too. Keys are (device, inode), so names and links do not matter.
// An owner has one declaration per file; a later one replaces it at once or not at all.
import { BlockError } from '../../base/index.js';
import { findConflict } from '../file-locks.js';
/** The refusal of a lock, in the words that scripts match; `holder` says who is in the way. */
export function lockConflict(conflict, path, holder) {
    const shared = conflict.shared ? 'shared ' : '';
    return new BlockError('locked', `Failed to get ${shared}"${conflict.permission}" lock`, {
        path,
        hint: `Is another process using the image [${path}]?`,
        ...(holder === undefined ? {} : { holder }),
    });
}
export class LockTable {
    #files = new Map();
    /** Throws kind `locked` when an owner other than `owner` conflicts; changes nothing. */
    check(file, owner, wanted) {
        const holders = this.#files.get(keyOf(file.identity));
        if (holders === undefined)
            return;
        for (const [holder, held] of holders) {
            if (holder === owner)
                continue;
            const conflict = findConflict(wanted, held);
            if (conflict !== null)
                throw lockConflict(conflict, file.path, held.user);
        }
    }
    /** Replaces the declaration of `owner`; to be called after check(). */
    set(identity, owner, request) {
        const key = keyOf(identity);
        const holders = this.#files.get(key);
        if (request.taken === 0 && request.unshared === 0) {
            holders?.delete(owner);
            if (holders?.size === 0)
                this.#files.delete(key);
        }
        else if (holders === undefined) {
            this.#files.set(key, new Map([[owner, request]]));
        }
        else {
            holders.set(owner, request);
        }
    }
    /** Number of files with at least one declaration. */
    get size() {
        return this.#files.size;
    }
}
/** The table of this process, for files of the operating system. */
export const processLocks = new LockTable();
function keyOf(identity) {
    return `${identity.device}:${identity.inode}`;
}
