// SPDX-License-Identifier: Apache-2.0
// One request on every child: started on all of them, ended when each has, none of them lost.
import { BlockError, settle } from '../../../base/index.js';
/** A programmer's mistake is thrown on, after all have ended. */
export function onEach(children, start) {
    const outcomes = children.map((child, index) => outcomeOf(() => start(child, index)));
    if (!outcomes.some((outcome) => outcome instanceof Promise))
        return checked(outcomes);
    return Promise.all(outcomes).then(checked);
}
/** Like onEach() of one. */
export function onOne(start) {
    return settle(onEach([null], start), ([outcome = null]) => outcome);
}
function outcomeOf(start) {
    try {
        const result = start();
        return result instanceof Promise ? result.then(() => null, ended) : null;
    }
    catch (error) {
        return ended(error);
    }
}
function ended(error) {
    return error instanceof BlockError ? error : { thrown: error };
}
function checked(outcomes) {
    return outcomes.map((outcome) => {
        if (outcome !== null && !(outcome instanceof BlockError))
            throw outcome.thrown;
        return outcome;
    });
}
