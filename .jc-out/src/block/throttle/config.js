// SPDX-License-Identifier: Apache-2.0
// The limits of a throttle group: a value that is changed as a whole and checked before it counts.
import { BlockError, THROTTLE_LIMITS } from '../../base/index.js';
import { LIMIT_NAMES, RATE_NAMES } from './options.js';
const NO_LIMIT = { average: 0, maximum: 0, burstLength: 1 };
export const UNLIMITED = {
    rates: Object.fromEntries(RATE_NAMES.map((name) => [name, NO_LIMIT])),
    operationSize: 0,
};
function fail(message) {
    throw new BlockError('invalid-option', message);
}
function isLength(name) {
    return name.endsWith('-max-length');
}
/** `config` with what `limits` names replaced; not checked as a whole yet. */
export function withLimits(config, limits) {
    const flat = limitsOf(config);
    for (const name of LIMIT_NAMES) {
        const given = limits[name];
        if (given === undefined)
            continue;
        const value = Number(given);
        const { burstLengthMax: lengthMax } = THROTTLE_LIMITS;
        if (isLength(name) && (value < 0 || value > lengthMax)) {
            fail(`${name} value must be in the range [0, ${lengthMax}]`);
        }
        if (name === 'iops-size' && (value < 0 || !Number.isSafeInteger(value))) {
            fail(`${name} value must be in the range [0, ${Number.MAX_SAFE_INTEGER}]`);
        }
        flat[name] = value;
    }
    return fromFlat(flat);
}
/** The properties with the older spelling, whose refusals are worded differently. */
export function checkPlainProperty(name, given) {
    if (given < 0)
        fail('Property values cannot be negative');
    const { burstLengthMax: lengthMax } = THROTTLE_LIMITS;
    if (isLength(name) && given > lengthMax) {
        fail(`x-${name} value must be in the range [0, ${lengthMax}]`);
    }
}
/** Every limit by name, as `qom-get limits` gives them. */
export function limitsOf(config) {
    const flat = {};
    for (const name of RATE_NAMES) {
        const { average, maximum, burstLength } = config.rates[name];
        flat[name] = average;
        flat[`${name}-max`] = maximum;
        flat[`${name}-max-length`] = burstLength;
    }
    return { ...flat, 'iops-size': config.operationSize };
}
function fromFlat(flat) {
    const rates = RATE_NAMES.map((name) => [
        name,
        {
            average: flat[name],
            maximum: flat[`${name}-max`],
            burstLength: flat[`${name}-max-length`],
        },
    ]);
    return {
        rates: Object.fromEntries(rates),
        operationSize: flat['iops-size'],
    };
}
/** Throws kind `invalid-option` where limits contradict each other. */
export function checkConfig(config) {
    const { rates } = config;
    const mixed = ['bps', 'iops'].some((unit) => ['average', 'maximum'].some((part) => rates[`${unit}-total`][part] !== 0 &&
        (rates[`${unit}-read`][part] !== 0 || rates[`${unit}-write`][part] !== 0)));
    if (mixed) {
        fail('bps/iops/max total values and read/write values cannot be used at the same time');
    }
    const anyOperations = ['iops-total', 'iops-read', 'iops-write'].some((name) => rates[name].average !== 0);
    if (config.operationSize !== 0 && !anyOperations) {
        fail('iops size requires an iops value to be set');
    }
    for (const name of RATE_NAMES)
        checkRate(rates[name]);
}
function checkRate({ average, maximum, burstLength }) {
    const { rateMax } = THROTTLE_LIMITS;
    if (Math.min(average, maximum) < 0 || Math.max(average, maximum) > rateMax) {
        fail(`bps/iops/max values must be within [0, ${rateMax}]`);
    }
    if (burstLength === 0)
        fail('the burst length cannot be 0');
    if (burstLength > 1 && maximum === 0)
        fail('burst length set without burst rate');
    if (maximum !== 0 && burstLength > Math.floor(rateMax / maximum)) {
        fail('burst length too high for this burst rate');
    }
    if (maximum !== 0 && average === 0) {
        fail('bps_max/iops_max require corresponding bps/iops values');
    }
    if (maximum !== 0 && maximum < average)
        fail('bps_max/iops_max cannot be lower than bps/iops');
}
