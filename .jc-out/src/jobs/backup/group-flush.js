// SPDX-License-Identifier: Apache-2.0
// Flushes that several users share: who asks while one runs waits for the next, for the one that
// runs may have begun before what he wants on disk was written.
export class GroupFlush {
    #at;
    /** The flush that began last; never rejects. */
    #begun = Promise.resolve();
    /** Begins when that one is over, for all who asked meanwhile. */
    #next = null;
    constructor(at) {
        this.#at = at;
    }
    /** Resolves when all that was written before the call is on disk. */
    flush() {
        this.#next ??= this.#after(this.#begun);
        return this.#next;
    }
    async #after(earlier) {
        await earlier;
        this.#next = null;
        const flushing = this.#flushNode();
        this.#begun = flushing.catch(() => undefined);
        await flushing;
    }
    async #flushNode() {
        await this.#at.node.flush();
    }
}
