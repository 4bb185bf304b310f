// SPDX-License-Identifier: Apache-2.0
// Events on their way from jobs and nodes to whoever listens.
//
// Delivery is synchronous and in the order of emission, so an event that a command causes is
// written before the command's reply. Listeners must not throw. Events that a bad disk could send
// by the thousand are limited: the first goes out at once, then at most one in a second, of which
// the last one counts.
/** One event of a kind in so many milliseconds. */
const LIMITED_TO_MS = 1000;
/** The member by which events of a limited kind are told apart; null: all are of one kind. */
const LIMITED = new Map([
    ['QUORUM_REPORT_BAD', 'node-name'],
    ['QUORUM_FAILURE', null],
]);
export class EventBus {
    #listeners = new Set();
    #limits = new Map();
    #clock;
    constructor(clock) {
        this.#clock = clock;
    }
    emit(name, data) {
        const event = { name, data, at: this.#clock.wallMicroseconds() };
        const member = LIMITED.get(name);
        if (member === undefined)
            this.#deliver(event);
        else
            this.#limited(member === null ? name : `${name} ${String(data[member])}`, event);
    }
    /** Calls `listener` for each event until the result is called. */
    subscribe(listener) {
        this.#listeners.add(listener);
        return () => void this.#listeners.delete(listener);
    }
    /** Drops what is held back. */
    close() {
        for (const { cancel } of this.#limits.values())
            cancel();
        this.#limits.clear();
    }
    #deliver(event) {
        for (const listener of this.#listeners)
            listener(event);
    }
    #limited(key, event) {
        const limit = this.#limits.get(key);
        if (limit !== undefined) {
            limit.latest = event;
            return;
        }
        const next = () => this.#clock.after(LIMITED_TO_MS, () => this.#next(key));
        this.#limits.set(key, { latest: null, cancel: next() });
        this.#deliver(event);
    }
    #next(key) {
        const latest = this.#limits.get(key)?.latest ?? null;
        this.#limits.delete(key);
        if (latest !== null)
            this.#limited(key, latest);
    }
}
