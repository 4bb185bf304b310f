// SPDX-License-Identifier: Apache-2.0
// Requests in flight on one node, and who waits for whom.
//
// A serialising request waits for every earlier request that overlaps it, and every later one that
// overlaps waits for it. Waiting is only ever for entries that came before, so it cannot deadlock.
// Requests that finish inline are not entered at all as long as nothing serialising is active: no
// other request can begin before they end. `count` is what drain looks at; it includes them.
import { settle } from '../../base/index.js';
class Entry {
    offset;
    length;
    serialising;
    previous = null;
    next = null;
    #done = null;
    #resolve = null;
    constructor(offset, length, serialising) {
        this.offset = offset;
        this.length = length;
        this.serialising = serialising;
    }
    overlaps(other) {
        return this.offset < other.offset + other.length && other.offset < this.offset + this.length;
    }
    done() {
        this.#done ??= new Promise((resolve) => {
            this.#resolve = resolve;
        });
        return this.#done;
    }
    finish() {
        this.#resolve?.();
    }
}
export class RequestTracker {
    /** Requests and batches running now, those that are not entered included. */
    count = 0;
    /** Serialising requests that are waiting or running. */
    serialising = 0;
    #last = null;
    #idleWaiters = [];
    enter(range) {
        const entry = new Entry(range.offset, range.length, range.serialising);
        entry.previous = this.#last;
        if (this.#last !== null)
            this.#last.next = entry;
        this.#last = entry;
        this.count += 1;
        if (entry.serialising)
            this.serialising += 1;
        return entry;
    }
    leave(entry) {
        if (entry.previous !== null)
            entry.previous.next = entry.next;
        if (entry.next === null)
            this.#last = entry.previous;
        else
            entry.next.previous = entry.previous;
        if (entry.serialising)
            this.serialising -= 1;
        entry.finish();
        this.leaveInline();
    }
    /** Ends a request that was only counted. */
    leaveInline() {
        this.count -= 1;
        if (this.count === 0 && this.#idleWaiters.length > 0) {
            const waiters = this.#idleWaiters;
            this.#idleWaiters = [];
            for (const wake of waiters)
                wake();
        }
    }
    /** An earlier entry that this one has to wait for, or null. */
    blocker(entry) {
        for (let other = entry.previous; other !== null; other = other.previous) {
            if ((other.serialising || entry.serialising) && other.overlaps(entry))
                return other;
        }
        return null;
    }
    /** Finishes when nothing entered earlier is in this entry's way. */
    waitTurn(entry) {
        const blocker = this.blocker(entry);
        if (blocker === null)
            return undefined;
        return settle(blocker.done(), () => this.waitTurn(entry));
    }
    /** Finishes when nothing runs; at once when nothing does. */
    idle() {
        if (this.count === 0)
            return undefined;
        return new Promise((resolve) => this.#idleWaiters.push(resolve));
    }
}
