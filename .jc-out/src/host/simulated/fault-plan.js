// SPDX-License-Identifier: Apache-2.0
// Counts the calls of a simulated host and fails those that the plan names.
import { BlockError, errnoText, kindOfErrno } from '../../base/index.js';
export const HOST_OPERATIONS = [
    'open',
    'create',
    'read',
    'write',
    'write-zeroes',
    'discard',
    'truncate',
    'sync',
    /** Taking locks; giving them up cannot fail. */
    'lock',
];
export class FaultPlan {
    #counts = new Map();
    #armed = [];
    constructor(faults = []) {
        for (const fault of faults)
            this.add(fault);
    }
    /** Adds a fault; its count starts now. */
    add(fault) {
        this.#armed.push({ fault, seen: 0 });
    }
    /** Drops every fault; the counts stay. */
    clear() {
        this.#armed.length = 0;
    }
    /** Calls so far of one operation. */
    count(operation) {
        return this.#counts.get(operation) ?? 0;
    }
    /** Counts a call; the error it is to fail with, or null. */
    next(operation, path) {
        this.#counts.set(operation, this.count(operation) + 1);
        let failure = null;
        for (const entry of this.#armed) {
            const { fault } = entry;
            if (fault.operation !== operation)
                continue;
            if (fault.path !== undefined && !path.endsWith(fault.path))
                continue;
            entry.seen += 1;
            if (entry.seen === fault.nth || (fault.lasting === true && entry.seen > fault.nth)) {
                failure ??= new BlockError(kindOfErrno(fault.errno), errnoText(fault.errno), {
                    path,
                    operation,
                    errno: fault.errno,
                });
            }
        }
        return failure;
    }
}
