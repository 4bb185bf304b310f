// SPDX-License-Identifier: Apache-2.0
// Actions on dirty bitmaps. They act when they are prepared, so that later actions see them: a
// backup takes a bitmap that an action before it has merged.
//
// Taking back never loses a write: recorded bits are only ever added to what is restored, but for
// those of a merge, whose bitmap saw no writes since (its node is drained).
import { checkBitmapUsable, detachBitmap } from '../../block/index.js';
import { addNamedBitmap, findNamedBitmap, mergeNamedBitmaps, strictMerge, } from '../../engine/index.js';
export const bitmapActions = {
    'block-dirty-bitmap-add': ({ engine }, data) => {
        const { node, bitmap } = addNamedBitmap(engine, data);
        return { abort: () => detachBitmap(node, bitmap) };
    },
    'block-dirty-bitmap-remove': remove,
    'block-dirty-bitmap-clear': clear,
    'block-dirty-bitmap-enable': (context, data) => record(context, data, true),
    'block-dirty-bitmap-disable': (context, data) => record(context, data, false),
    'block-dirty-bitmap-merge': merge,
    'x-block-dirty-bitmap-enable': (context, data) => record(context, data, true),
    'x-block-dirty-bitmap-disable': (context, data) => record(context, data, false),
    'x-block-dirty-bitmap-merge': (context, data) => merge(context, strictMerge(data)),
};
/** It goes in the end; until then it has its name and is busy. */
function remove({ engine }, data) {
    const { node, bitmap } = findNamedBitmap(engine, data);
    checkBitmapUsable(bitmap, 'remove');
    const release = bitmap.hold('transaction');
    return {
        commit() {
            release();
            detachBitmap(node, bitmap);
        },
        abort: release,
    };
}
function clear({ engine }, data) {
    const { bitmap } = findNamedBitmap(engine, data);
    checkBitmapUsable(bitmap, 'change');
    const before = bitmap.copy(null);
    bitmap.clearAll();
    return { abort: () => bitmap.merge(before) };
}
function record({ engine }, data, on) {
    const { bitmap } = findNamedBitmap(engine, data);
    checkBitmapUsable(bitmap, 'use');
    const before = bitmap.enabled;
    bitmap.enabled = on;
    return {
        abort() {
            bitmap.enabled = before;
        },
    };
}
function merge({ engine }, request) {
    const { bitmap } = findNamedBitmap(engine, { node: request.node, name: request.target });
    const before = bitmap.copy(null);
    mergeNamedBitmaps(engine, request);
    return { abort: () => bitmap.adopt(before) };
}
