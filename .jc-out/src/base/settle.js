// SPDX-License-Identifier: Apache-2.0
// Synchronous-first results. A function that returns Eventually<T> gives the plain value when it
// finished inline and a promise only when it has to wait; an inline failure throws. Callers on a
// hot path use settle() so that no promise and no closure is made when none is needed.
/** Calls `done` with the result, at once if it is there already. */
export function settle(result, done) {
    return result instanceof Promise ? result.then(done) : done(result);
}
/**
 * Runs `start` and calls `cleanup` exactly once when it is over, whichever way it ends.
 * `start` may throw inline.
 */
export function settleFinally(start, cleanup) {
    let result;
    try {
        result = start();
    }
    catch (error) {
        cleanup();
        throw error;
    }
    if (result instanceof Promise)
        return result.finally(cleanup);
    cleanup();
    return result;
}
/** Runs the steps one after another, without a promise as long as each finishes inline. */
export function sequence(count, step) {
    for (let index = 0; index < count; index += 1) {
        const result = step(index);
        if (result instanceof Promise)
            return continueSequence(result, index + 1, count, step);
    }
    return undefined;
}
async function continueSequence(pending, from, count, step) {
    await pending;
    for (let index = from; index < count; index += 1)
        await step(index);
}
