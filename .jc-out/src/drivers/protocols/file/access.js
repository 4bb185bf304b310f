// SPDX-License-Identifier: Apache-2.0
// The host file behind a node, and whether it is open for writing.
//
// With `auto-read-only` a node that may be written to has its file open read-only until a user
// takes a permission to write, and again when the last of these is gone. The file is then opened a
// second time; locks move in the same turn, so that at no moment is the file without them. The
// former opening is closed once nobody uses it, and flushed before where it was written through:
// until that is done a flush of the node waits for it, and fails if it failed.
import { BlockError, Permission, } from '../../../base/index.js';
const WRITING = Permission.write | Permission.writeUnchanged | Permission.resize;
export class FileAccess {
    file;
    #parts;
    #taken;
    #retiring = null;
    /** `taken`: permissions that are held when it takes over from another. */
    constructor(parts, taken) {
        this.#parts = parts;
        this.#taken = taken;
        this.file = parts.file;
    }
    /** Permissions that the node's users hold, as declared last. */
    get taken() {
        return this.#taken;
    }
    /** Throws with file and locks as they were. */
    declare(cumulative) {
        const needsWriting = (cumulative.taken & WRITING) !== 0;
        const { openAgain } = this.#parts;
        if (openAgain !== null && needsWriting && this.file.readOnly) {
            this.#replace(openAgain(false), cumulative);
        }
        else {
            this.#lock(this.file, cumulative);
            if (openAgain !== null && !needsWriting && !this.file.readOnly)
                this.#lower(openAgain);
        }
        this.#taken = cumulative.taken;
    }
    takeOver(from) {
        this.file.takeOverLocks(from);
    }
    /** Everything written so far, through a former opening too. */
    sync() {
        const retiring = this.#retiring;
        // The present opening may have become a former one by then.
        return retiring === null ? this.file.sync() : retiring.then(() => this.sync());
    }
    async close() {
        try {
            await this.#retiring;
        }
        finally {
            await this.file.close();
        }
    }
    #lock(file, { taken, shared }) {
        if (!this.#parts.locked)
            return;
        const request = { taken, unshared: Permission.all & ~shared };
        file.lock(request, `node '${this.#parts.node.name}'`);
    }
    #replace(next, cumulative) {
        const old = this.file;
        try {
            requireSame(next, old);
            if (this.#parts.locked)
                next.takeOverLocks(old);
            try {
                this.#lock(next, cumulative);
            }
            catch (error) {
                if (this.#parts.locked)
                    old.takeOverLocks(next);
                throw error;
            }
        }
        catch (error) {
            void next.close().catch(() => undefined);
            throw error;
        }
        this.file = next;
        this.#retire(old);
    }
    /** Nothing is lost when the file cannot be opened read-only: it stays as it is. */
    #lower(openAgain) {
        const old = this.file;
        let next;
        try {
            next = openAgain(true);
        }
        catch (error) {
            if (error instanceof BlockError)
                return;
            throw error;
        }
        try {
            requireSame(next, old);
            if (this.#parts.locked)
                next.takeOverLocks(old);
        }
        catch (error) {
            void next.close().catch(() => undefined);
            if (error instanceof BlockError)
                return;
            throw error;
        }
        this.file = next;
        this.#retire(old);
    }
    #retire(old) {
        const before = this.#retiring;
        const done = closeAfter(before, old);
        this.#retiring = done;
        // A failure stays for whoever flushes or closes.
        done.then(() => {
            if (this.#retiring === done)
                this.#retiring = null;
        }, () => undefined);
    }
}
async function closeAfter(before, old) {
    try {
        await before;
        if (!old.readOnly)
            await old.sync();
    }
    finally {
        await old.close();
    }
}
function requireSame(next, old) {
    const { device, inode } = next.identity;
    if (device === old.identity.device && inode === old.identity.inode)
        return;
    const text = `Could not reopen '${old.path}': another file has taken its name`;
    throw new BlockError('invalid-state', text, { path: old.path });
}
