// SPDX-License-Identifier: Apache-2.0
// Merging bitmaps as users ask for it: all of the sources or none.
import { BlockError } from '../../base/index.js';
import { checkBitmapUsable } from './node-bitmaps.js';
function requireMergeable(target, source) {
    checkBitmapUsable(source, 'use');
    if (source.size === target.size)
        return;
    throw new BlockError('invalid-option', `Bitmaps are of different sizes (destination size is ${target.size}, source size is ` +
        `${source.size}) and can't be merged`);
}
/**
 * Adds what is dirty in any of the sources; the bitmap itself may be one. Sources are looked at
 * one by one as they come, so that the first mistake in them is the one reported. Granularities
 * may differ, sizes may not. Throws with nothing changed.
 */
export function mergeBitmaps(target, sources) {
    const merged = [];
    for (const source of sources) {
        requireMergeable(target, source);
        merged.push(source);
    }
    checkBitmapUsable(target, 'change');
    for (const source of merged)
        target.merge(source);
}
