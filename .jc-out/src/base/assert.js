// SPDX-License-Identifier: Apache-2.0
// Assertions: a programmer's mistake stops the program; it is never a user-visible refusal.
export class AssertionFailure extends Error {
    constructor(message) {
        super(`assertion failed: ${message}`);
        this.name = 'AssertionFailure';
    }
}
export function assert(condition, message) {
    if (!condition)
        throw new AssertionFailure(message);
}
/** The value, which is known to be there. */
export function must(value, message) {
    if (value === null || value === undefined)
        throw new AssertionFailure(message);
    return value;
}
