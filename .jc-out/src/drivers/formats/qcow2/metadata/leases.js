// SPDX-License-Identifier: Apache-2.0
// Who still uses host clusters (leases), and who is changing guest clusters (range locks).
//
// A lease is an epoch number. A free records the epoch it happened in and starts a new one; its
// cluster may be reused or punched once every lease of that epoch or an older one has ended.
// A range lock covers guest clusters whose L2 entries its holder is about to change: L2 entries
// change only under a lock, so a plan made under it stays true across awaits. Locks are taken
// synchronously; a holder never waits for another lock while it holds one, so there is no cycle.
export class Leases {
    #epoch = 0;
    /** Epoch → open leases; inserted in ascending order, so the first key is the oldest. */
    #open = new Map();
    /** Called when a lease ended that a free may have waited for. */
    onLeave = () => undefined;
    /** Opens a lease; give the result to leave() exactly once. */
    enter() {
        const epoch = this.#epoch;
        this.#open.set(epoch, (this.#open.get(epoch) ?? 0) + 1);
        return epoch;
    }
    leave(epoch) {
        const count = this.#open.get(epoch) ?? 0;
        if (count > 1) {
            this.#open.set(epoch, count - 1);
            return;
        }
        this.#open.delete(epoch);
        this.onLeave();
    }
    /** The mark of a free that happens now. */
    stamp() {
        const epoch = this.#epoch;
        this.#epoch += 1;
        return epoch;
    }
    /** No lease is left that is as old as the mark. */
    isOver(stamp) {
        for (const oldest of this.#open.keys())
            return oldest > stamp;
        return true;
    }
}
export class RangeLocks {
    #held = new Set();
    /** Null when the clusters are free; otherwise resolves when it is worth asking again. */
    conflict(first, end) {
        for (const lock of this.#held) {
            if (first >= lock.end || end <= lock.first)
                continue;
            lock.released ??= new Promise((resolve) => {
                lock.resolve = resolve;
            });
            return lock.released;
        }
        return null;
    }
    /** The caller has asked conflict() in the same turn. */
    acquire(first, end) {
        const lock = { first, end, released: null, resolve: null };
        this.#held.add(lock);
        return lock;
    }
    release(lock) {
        const held = lock;
        this.#held.delete(held);
        held.resolve?.();
    }
}
