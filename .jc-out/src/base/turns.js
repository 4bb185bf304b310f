// SPDX-License-Identifier: Apache-2.0
// Work that is done one piece at a time, in the order in which it was asked for.
export class Turns {
    #last = Promise.resolve();
    /** Runs `work` once all asked for before has ended, well or not. */
    run(work) {
        const result = this.#last.then(work);
        this.#last = result.catch(() => undefined);
        return result;
    }
}
