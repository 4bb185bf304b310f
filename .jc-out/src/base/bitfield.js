// SPDX-License-Identifier: Apache-2.0
// 64-bit words with named bits, held as two unsigned 32-bit halves; never BigInt.
//
// A table names single bits (`copied: 63`) and bit ranges (`hostOffset: [9, 55]`, both ends
// included). A range keeps its place: reading `hostOffset` of a table entry gives bytes and not a
// shifted index. Halves are always unsigned (`>>> 0`).
import { assert } from './assert.js';
export const NO_BITS = Object.freeze({ hi: 0, lo: 0 });
/** Masks of the named bits and, under `reserved`, of all bits that have no name. */
export function bitfield64(table) {
    const masks = {};
    let hi = 0;
    let lo = 0;
    for (const [name, place] of Object.entries(table)) {
        const mask = typeof place === 'number' ? rangeMask(place, place) : rangeMask(...place);
        assert((mask.hi & hi) === 0 && (mask.lo & lo) === 0, `bit field ${name} overlaps another`);
        hi = (hi | mask.hi) >>> 0;
        lo = (lo | mask.lo) >>> 0;
        masks[name] = mask;
    }
    masks['reserved'] = { hi: ~hi >>> 0, lo: ~lo >>> 0 };
    return masks;
}
function rangeMask(first, last) {
    assert(first >= 0 && first <= last && last <= 63, `bad bit range ${first}..${last}`);
    let hi = 0;
    let lo = 0;
    for (let bit = first; bit <= last; bit += 1) {
        if (bit >= 32)
            hi |= 1 << (bit - 32);
        else
            lo |= 1 << bit;
    }
    return { hi: hi >>> 0, lo: lo >>> 0 };
}
/** The word with only `bit` (0 to 63) set. */
export function bit64(bit) {
    return rangeMask(bit, bit);
}
export function hasAny(word, mask) {
    return (word.hi & mask.hi) !== 0 || (word.lo & mask.lo) !== 0;
}
export function hasBit(word, bit) {
    return bit >= 32 ? ((word.hi >>> (bit - 32)) & 1) === 1 : ((word.lo >>> bit) & 1) === 1;
}
export function orBits(a, b) {
    return { hi: (a.hi | b.hi) >>> 0, lo: (a.lo | b.lo) >>> 0 };
}
export function andBits(a, b) {
    return { hi: (a.hi & b.hi) >>> 0, lo: (a.lo & b.lo) >>> 0 };
}
export function withoutBits(a, b) {
    return { hi: (a.hi & ~b.hi) >>> 0, lo: (a.lo & ~b.lo) >>> 0 };
}
/** Numbers of the set bits, lowest first. */
export function bitNumbers(word) {
    const numbers = [];
    for (let bit = 0; bit < 64; bit += 1)
        if (hasBit(word, bit))
            numbers.push(bit);
    return numbers;
}
/** Lower-case hexadecimal of the whole word without leading zeroes, as messages print it. */
export function hexBits(word) {
    if (word.hi === 0)
        return word.lo.toString(16);
    return word.hi.toString(16) + word.lo.toString(16).padStart(8, '0');
}
