// SPDX-License-Identifier: Apache-2.0
// Which bytes of an image stand for which permission, as QEMU's programs lay them down.
import { PERMISSION_NAMES } from '../base/index.js';
/** First byte of the range that says "I have permission i". */
export const TAKEN_BASE = 100;
/** First byte of the range that says "I do not share permission i". */
export const UNSHARED_BASE = 200;
/** The first conflict of a request with what another opener declared, or null. */
export function findConflict(wanted, other) {
    for (let bit = 0; bit < PERMISSION_NAMES.length; bit += 1) {
        const mask = 1 << bit;
        const permission = PERMISSION_NAMES[bit] ?? '';
        if (wanted.taken & mask && other.unshared & mask)
            return { permission, shared: false };
        if (wanted.unshared & mask && other.taken & mask)
            return { permission, shared: true };
    }
    return null;
}
