// SPDX-License-Identifier: Apache-2.0
// Changes that happen all together or not at all.
//
// Only the building of steps (prepare) and `clean`, after the fact, may await; commit and abort are
// synchronous, so no other task sees a half-changed graph. A step that already changed something
// while it was prepared undoes it in abort. Steps are undone in reverse order.
export class Transaction {
    #steps = [];
    add(step) {
        this.#steps.push(step);
    }
    commit() {
        for (const step of this.#steps)
            step.commit?.();
    }
    abort() {
        for (let index = this.#steps.length - 1; index >= 0; index -= 1)
            this.#steps[index]?.abort?.();
    }
    /** Runs every clean. The change stands or is undone already, so no failure of one counts. */
    async clean() {
        for (const step of this.#steps)
            await step.clean?.().catch(() => undefined);
    }
}
/**
 * Builds and commits a transaction. It throws what `build` throws, with everything prepared undone,
 * and nothing else: a caller that meets an error knows that nothing has changed.
 */
export async function transaction(build) {
    const tx = new Transaction();
    let result;
    try {
        result = await build(tx);
    }
    catch (error) {
        tx.abort();
        await tx.clean();
        throw error;
    }
    tx.commit();
    await tx.clean();
    return result;
}
