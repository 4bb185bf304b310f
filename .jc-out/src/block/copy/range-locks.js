// SPDX-License-Identifier: Apache-2.0
// Byte ranges that someone works on now; others wait until an overlapping one is free again.
//
// Taking is synchronous and only allowed when nothing overlaps; waiting is looked at again after
// every release, so a waiter must check anew before it takes.
import { assert } from '../../base/index.js';
export class RangeLocks {
    #held = new Set();
    /** What is held now. */
    ranges() {
        return this.#held;
    }
    get count() {
        return this.#held.size;
    }
    overlaps(offset, length) {
        return this.#find(offset, length) !== null;
    }
    /** Nothing may overlap. Release exactly once. */
    take(offset, length) {
        assert(!this.overlaps(offset, length), `range at ${offset} is taken`);
        return this.join(offset, length);
    }
    /** Beside others that hold parts of it. Release exactly once. */
    join(offset, length) {
        const held = { offset, length, waiters: [] };
        this.#held.add(held);
        return () => {
            assert(this.#held.delete(held), `range at ${offset} is released twice`);
            for (const waiter of held.waiters)
                waiter();
        };
    }
    /** Waits until one range that overlaps is released; undefined when none does. */
    wait(offset, length) {
        const held = this.#find(offset, length);
        if (held === null)
            return undefined;
        return new Promise((resolve) => {
            held.waiters.push(resolve);
        });
    }
    #find(offset, length) {
        for (const held of this.#held) {
            if (held.offset < offset + length && offset < held.offset + held.length)
                return held;
        }
        return null;
    }
}
