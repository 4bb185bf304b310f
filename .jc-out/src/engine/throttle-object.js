// SPDX-License-Identifier: Apache-2.0
// A throttle group as an object: made from its options, changed as a whole through `limits`.
import { BlockError } from '../base/index.js';
import { LIMIT_NAMES, throttleLimits } from '../block/throttle/options.js';
import { checkPlainProperty, limitsOf, ThrottleGroup, UNLIMITED, withLimits, } from '../block/throttle/index.js';
import { validate } from '../schema/index.js';
/** Throws kind `invalid-option` where the limits make no sense. */
export function makeThrottleGroup(options, clock) {
    const group = new ThrottleGroup(options.id, clock);
    let config = UNLIMITED;
    for (const name of LIMIT_NAMES) {
        const value = options[`x-${name}`];
        if (value === undefined)
            continue;
        checkPlainProperty(name, value);
        config = withLimits(config, { [name]: value });
    }
    group.configure(withLimits(config, options.limits ?? {}));
    return {
        type: 'throttle-group',
        group,
        properties: propertiesOf(group),
        get inUse() {
            return group.inUse;
        },
    };
}
function propertiesOf(group) {
    const properties = new Map();
    properties.set('limits', {
        type: 'ThrottleLimits',
        get: () => limitsOf(group.config),
        set: (value) => group.configure(withLimits(group.config, validate(throttleLimits, value, 'limits'))),
    });
    for (const name of LIMIT_NAMES) {
        properties.set(`x-${name}`, {
            type: 'int',
            get: () => limitsOf(group.config)[name],
            set: () => {
                throw new BlockError('invalid-state', 'Property cannot be set after initialization');
            },
        });
    }
    return properties;
}
