// SPDX-License-Identifier: Apache-2.0
// The loop that all requests share: steps along a range, synchronous as long as each is.
//
// A step handles the first part of what is left and says how much; 0 bytes means that it only
// waits for something (a table, a lock, room among dirty tables) and is to be asked again. Steps
// of one request run side by side once one has to be waited for; the request ends when all are at
// rest, with the first error. It holds a lease from then on: no cluster it works on is reused.
import { QCOW2_LIMITS } from '../../../../base/index.js';
export function runSteps(stepper, range, shared) {
    const end = range.offset + range.length;
    for (let at = range.offset; at < end; at += stepper.stepLength) {
        const step = stepper.step(at, end - at, shared.context);
        if (step instanceof Promise) {
            const next = at + stepper.stepLength;
            return continueSteps(stepper, { first: step, at: next, end, waits: next === at }, shared);
        }
    }
    return undefined;
}
async function continueSteps(stepper, progress, shared) {
    const { end } = progress;
    const lease = shared.leases.enter();
    let pending = [progress.first];
    let mustWait = progress.waits;
    try {
        for (let at = progress.at; at < end || pending.length > 0;) {
            if (mustWait || at >= end || pending.length >= QCOW2_LIMITS.parallelRuns) {
                const batch = pending;
                pending = [];
                await allOf(batch);
                mustWait = false;
                continue;
            }
            const step = stepper.step(at, end - at, shared.context);
            at += stepper.stepLength;
            if (step instanceof Promise) {
                pending.push(step);
                mustWait = stepper.stepLength === 0;
            }
        }
    }
    finally {
        // The buffer belongs to the request until every part of it is at rest.
        await Promise.allSettled(pending);
        shared.leases.leave(lease);
    }
}
/** Waits for all, then throws the first failure. */
async function allOf(promises) {
    for (const result of await Promise.allSettled(promises)) {
        if (result.status === 'rejected')
            throw result.reason;
    }
}
export function nothing() {
    return undefined;
}
