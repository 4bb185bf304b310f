// SPDX-License-Identifier: Apache-2.0
// What a user's options of copy-before-write come to: the units of the snapshot, and the time that
// a copy may take.
import { BlockError, CLOCK_LIMITS, toBlockError } from '../../../base/index.js';
import { checkBitmapUsable, requireBitmap } from '../../../block/index.js';
import { CopyBitmap, copyUnit } from '../../../block/copy/index.js';
/** All units, or those that a bitmap has bits in. Throws for a bitmap that does not fit. */
export function chosenUnits(context, options) {
    const source = context.child('file').node;
    const unit = copyUnit(context.child('target').node, options['min-cluster-size']);
    if (options.bitmap === undefined)
        return new CopyBitmap(source.length, unit);
    const chosen = findBitmap(context, options.bitmap);
    const units = new CopyBitmap(source.length, unit, 'clean');
    requireMergeable(chosen, units);
    for (let run = chosen.nextDirty(0); run !== null;) {
        units.set(run.offset, run.length);
        const end = run.offset + run.length;
        run = end < chosen.size ? chosen.nextDirty(end) : null;
    }
    return units;
}
function findBitmap(context, { node: nodeName, name }) {
    const node = context.findNode?.(nodeName) ?? null;
    if (node === null)
        throw new BlockError('not-found', `Node '${nodeName}' not found`);
    return requireBitmap(node, name);
}
function requireMergeable(chosen, units) {
    const prefix = 'Cannot create block-copy-state: ' +
        `Failed to merge bitmap '${chosen.name ?? ''}' to internal copy-bitmap: `;
    try {
        checkBitmapUsable(chosen, 'change');
    }
    catch (error) {
        const { kind, message, context } = toBlockError(error);
        throw new BlockError(kind, prefix + message, context);
    }
    if (chosen.size === units.length)
        return;
    throw new BlockError('invalid-option', `${prefix}Bitmaps are of different sizes (destination size is ${units.length}, source size ` +
        `is ${chosen.size}) and can't be merged`);
}
/** Null: a copy may take as long as it does. */
export function timeoutOf({ host, node }, options) {
    const timeoutMs = (options['cbw-timeout'] ?? 0) * 1000;
    if (timeoutMs === 0 || timeoutMs > CLOCK_LIMITS.longestTimerMs)
        return null;
    return {
        clock: host.clock,
        timeoutMs,
        enter: (offset, length) => node.enterBatch(offset, length, false),
    };
}
