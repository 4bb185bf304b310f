// SPDX-License-Identifier: Apache-2.0
// Scalars as command lines spell them. Each parser gives undefined for what is none.
const TRUE_WORDS = ['on', 'yes', 'true', 'y'];
const FALSE_WORDS = ['off', 'no', 'false', 'n'];
export function parseBoolText(text) {
    if (TRUE_WORDS.includes(text))
        return true;
    return FALSE_WORDS.includes(text) ? false : undefined;
}
const INTEGER = /^([+-]?)(0[xX][0-9a-fA-F]{1,16}|0[0-7]{1,22}|0|[1-9][0-9]{0,19})$/;
/** Decimal, hexadecimal (0x) or octal (leading 0); the caller checks the range. */
export function parseIntegerText(text) {
    const match = INTEGER.exec(text);
    if (match === null)
        return undefined;
    const digits = match[2];
    const isOctal = digits.length > 1 && /^0[0-7]/.test(digits);
    const magnitude = BigInt(isOctal ? `0o${digits.slice(1)}` : digits);
    return match[1] === '-' ? -magnitude : magnitude;
}
const SUFFIX_BITS = {
    '': 0n,
    b: 0n,
    k: 10n,
    m: 20n,
    g: 30n,
    t: 40n,
    p: 50n,
    e: 60n,
};
const SIZE = /^([0-9]{1,20})(?:\.([0-9]{1,18}))?([bkmgtpe]?)$/i;
const HEX_SIZE = /^0x[0-9a-f]{1,16}$/i;
/**
 * Bytes: digits, a fraction where a suffix gives it meaning, one of b k M G T P E; or 0x digits.
 */
export function parseSizeText(text) {
    if (HEX_SIZE.test(text))
        return BigInt(text);
    const match = SIZE.exec(text);
    if (match === null)
        return undefined;
    const bits = SUFFIX_BITS[match[3].toLowerCase()];
    const whole = BigInt(match[1]) << bits;
    const fraction = match[2];
    if (fraction === undefined)
        return whole;
    if (bits === 0n)
        return undefined;
    return whole + (BigInt(fraction) << bits) / 10n ** BigInt(fraction.length);
}
