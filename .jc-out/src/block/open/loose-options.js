// SPDX-License-Identifier: Apache-2.0
// Option values as they stand in names of images: `json:` texts are not checked against a schema,
// and those made of command-line options hold every value as a string.
import { BlockError } from '../../base/index.js';
/** A whole number that may be a string of digits; throws kind `invalid-option` for another. */
export function looseNumber(name, value, otherwise) {
    if (value === undefined)
        return otherwise;
    const number = typeof value === 'string' && /^-?[0-9]+$/.test(value) ? Number(value) : value;
    if (typeof number === 'number' && Number.isSafeInteger(number))
        return number;
    if (typeof number === 'bigint')
        return Number(number);
    throw new BlockError('invalid-option', `Parameter '${name}' expects a number`);
}
/** A flag that may be `on` or `off`; throws kind `invalid-option` for anything else. */
export function looseFlag(name, value) {
    if (value === undefined || value === false || value === 'off')
        return false;
    if (value === true || value === 'on')
        return true;
    throw new BlockError('invalid-option', `Parameter '${name}' expects 'on' or 'off'`);
}
