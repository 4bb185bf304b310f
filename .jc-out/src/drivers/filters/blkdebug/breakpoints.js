// SPDX-License-Identifier: Apache-2.0
// Requests held at chosen events, until somebody lets them go on.
//
// A breakpoint holds one request and is spent. A request that meets several is held by each of
// them. Where the parent cannot wait at the event itself, its next request is held at the door of
// this node instead: that is the first moment at which anybody could see what it does. While the
// node or one above it is drained nothing is held, and what was held goes on: a drain ends.
import { BlockError } from '../../../base/index.js';
import { blkdebugEvent } from './options.js';
export class HeldRequests {
    #set = [];
    /** Tags that the next request is held under. */
    #door = [];
    #held = [];
    #waiters = [];
    #drains = 0;
    set(event, tag) {
        const events = blkdebugEvent.values;
        if (!events.includes(event)) {
            throw new BlockError('not-found', `There is no event '${event}' to hold requests at`);
        }
        this.#set = [...this.#set, { event, tag }];
    }
    remove(tag) {
        const left = this.#set.filter((breakpoint) => breakpoint.tag !== tag);
        const removed = left.length < this.#set.length;
        this.#set = left;
        this.#door = this.#door.filter((other) => other !== tag);
        while (this.resume(tag))
            ;
        return removed;
    }
    resume(tag) {
        const at = this.#held.findLastIndex((held) => held.tag === tag);
        if (at < 0)
            return false;
        const [held] = this.#held.splice(at, 1);
        held?.goOn();
        return true;
    }
    isHolding(tag) {
        return this.#held.some((held) => held.tag === tag);
    }
    held(tag) {
        if (this.isHolding(tag))
            return Promise.resolve();
        return new Promise((wake) => this.#waiters.push({ tag, wake }));
    }
    /** The event happened: a promise while its request is held, if it can wait. */
    meet(event, canWait) {
        if (this.#set.length === 0 || this.#drains > 0)
            return undefined;
        const met = this.#set.filter((breakpoint) => breakpoint.event === event);
        if (met.length === 0)
            return undefined;
        this.#set = this.#set.filter((breakpoint) => breakpoint.event !== event);
        const tags = met.map(({ tag }) => tag);
        if (canWait)
            return this.#hold(tags);
        this.#door.push(...tags);
        return undefined;
    }
    /** A request comes in. */
    atDoor() {
        if (this.#door.length === 0)
            return undefined;
        return this.#hold(this.#door.splice(0));
    }
    drainBegin() {
        this.#drains += 1;
        this.letGo();
    }
    drainEnd() {
        this.#drains -= 1;
    }
    letGo() {
        this.#door = [];
        for (const { goOn } of this.#held.splice(0))
            goOn();
    }
    async #hold(tags) {
        const all = tags.map((tag) => {
            return new Promise((goOn) => this.#held.push({ tag, goOn }));
        });
        for (const { wake } of this.#waiters.filter(({ tag }) => this.isHolding(tag)))
            wake();
        this.#waiters = this.#waiters.filter(({ tag }) => !this.isHolding(tag));
        await Promise.all(all);
    }
}
