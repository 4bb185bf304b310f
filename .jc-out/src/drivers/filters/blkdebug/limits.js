// SPDX-License-Identifier: Apache-2.0
// Limits of `blkdebug` nodes that their children do not have.
import { BlockError } from '../../../base/index.js';
const LIMIT_MAX = 2 ** 31 - 1;
/** Throws kind `invalid-option` naming the member that does not fit the others. */
export function ownLimits(options, childAlignment) {
    const align = Number(options.align ?? 0);
    const isPower = Number.isInteger(Math.log2(align));
    if (align !== 0 && !(align > 0 && align < LIMIT_MAX && isPower)) {
        throw new BlockError('invalid-option', `Cannot meet constraints with align ${align}`);
    }
    const unit = Math.max(1, align, childAlignment);
    const take = (name, multiple) => {
        const value = options[name] ?? 0;
        if (value >= 0 && value < LIMIT_MAX && value % multiple === 0)
            return value;
        throw new BlockError('invalid-option', `Cannot meet constraints with ${name} ${value}`);
    };
    const maxTransfer = take('max-transfer', unit);
    const optimalZeroes = take('opt-write-zero', unit);
    const maxZeroes = take('max-write-zero', Math.max(unit, optimalZeroes));
    const optimalDiscard = take('opt-discard', unit);
    const maxDiscard = take('max-discard', Math.max(unit, optimalDiscard));
    return { align, maxTransfer, optimalZeroes, maxZeroes, optimalDiscard, maxDiscard };
}
export function limitsOver(own, below) {
    return {
        requestAlignment: Math.max(own.align, below.requestAlignment),
        maxTransfer: own.maxTransfer || below.maxTransfer,
        optimalZeroes: own.optimalZeroes || below.optimalZeroes,
        optimalDiscard: own.optimalDiscard || below.optimalDiscard,
        maxZeroes: own.maxZeroes || (below.maxZeroes ?? 0),
        maxDiscard: own.maxDiscard || (below.maxDiscard ?? 0),
    };
}
