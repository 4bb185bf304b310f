// SPDX-License-Identifier: Apache-2.0
// Where the work of a job waits: one place, taken by the work alone, left when someone wakes it.
//
// Others can wait until the work has come to rest here, or is told to be at rest elsewhere.
import { assert } from '../base/index.js';
export class Parking {
    #owner;
    #wake = null;
    #waiters = [];
    /** `owner` is named when it parks twice, which is a programmer's mistake. */
    constructor(owner) {
        this.#owner = owner;
    }
    get taken() {
        return this.#wake !== null;
    }
    /** Does nothing where nobody is parked. */
    wake() {
        this.#wake?.();
    }
    /** Waits for wake(), which `arm` may hand on; what it gives back is called when it is over. */
    async park(arm) {
        assert(this.#wake === null, `job ${this.#owner} is parked twice`);
        await new Promise((resolve) => {
            let disarm = undefined;
            const wake = () => {
                if (this.#wake === null)
                    return;
                this.#wake = null;
                disarm?.();
                resolve();
            };
            this.#wake = wake;
            disarm = arm?.(wake);
            this.tellRest();
        });
    }
    /** Resolves at the next rest. */
    nextRest() {
        return new Promise((resolve) => void this.#waiters.push(resolve));
    }
    /** The work has come to rest, here or for good. */
    tellRest() {
        for (const resolve of this.#waiters.splice(0))
            resolve();
    }
}
