// SPDX-License-Identifier: Apache-2.0
// How the limits of a throttle group are spelled; pure data.
//
// Six rates (bps and iops; total, read, write), each with a burst rate and the seconds it may last,
// and the size up to which a request is one operation. `limits` takes them as they are, the older
// spelling puts `x-` before each.
import { int, optional, struct } from '../../schema/index.js';
export const RATE_NAMES = [
    'bps-total',
    'bps-read',
    'bps-write',
    'iops-total',
    'iops-read',
    'iops-write',
];
export const LIMIT_NAMES = [
    ...RATE_NAMES.flatMap((name) => [name, `${name}-max`, `${name}-max-length`]),
    'iops-size',
];
function optionalInts(prefix, facts = {}) {
    const members = LIMIT_NAMES.map((name) => [`${prefix}${name}`, optional(int, facts)]);
    return Object.fromEntries(members);
}
export const throttleLimits = struct('ThrottleLimits', optionalInts(''));
export const throttleGroupProperties = struct('ThrottleGroupProperties', {
    limits: optional(throttleLimits),
    ...optionalInts('x-', { features: ['unstable'] }),
});
