// SPDX-License-Identifier: Apache-2.0
// Dirty bitmaps: adding, removing, clearing, and what queries show of them.
import { BlockError } from '../../base/index.js';
import { bitmapSha256, clearBitmap, DirtyBitmap, removeBitmap } from '../../block/index.js';
import { setRecording, shownBitmapsOf } from '../../block/index.js';
import { addNamedBitmap, findNamedBitmap, mergeNamedBitmaps, strictMerge, } from '../../engine/index.js';
function nodeOf(engine, name) {
    const node = engine.graph.find(name);
    if (node !== null)
        return node;
    throw new BlockError('not-found', `Node '${name}' not found`);
}
function record(engine, { node, name }, on) {
    setRecording(nodeOf(engine, node), name, on);
}
export const bitmapCommands = {
    'block-dirty-bitmap-add': (engine, args) => void addNamedBitmap(engine, args),
    'block-dirty-bitmap-remove': (engine, { node, name }) => removeBitmap(nodeOf(engine, node), name),
    'block-dirty-bitmap-clear': (engine, { node, name }) => clearBitmap(nodeOf(engine, node), name),
    'block-dirty-bitmap-enable': (engine, args) => record(engine, args, true),
    'block-dirty-bitmap-disable': (engine, args) => record(engine, args, false),
    'block-dirty-bitmap-merge': (engine, args) => void mergeNamedBitmaps(engine, args),
    'x-block-dirty-bitmap-enable': (engine, args) => record(engine, args, true),
    'x-block-dirty-bitmap-disable': (engine, args) => record(engine, args, false),
    'x-block-dirty-bitmap-merge': (engine, args) => void mergeNamedBitmaps(engine, strictMerge(args)),
    'x-debug-block-dirty-bitmap-sha256': async (engine, args) => ({
        sha256: await bitmapSha256(findNamedBitmap(engine, args).bitmap),
    }),
};
/** The newest comes first, as in the reference. */
export function describeBitmaps(node) {
    return shownBitmapsOf(node).toReversed().map((shown) => shown instanceof DirtyBitmap ? describeBitmap(shown) : describeBits(shown));
}
function describeBits({ granularity, count, recording = false }) {
    return { recording, persistent: false, busy: false, granularity, count };
}
function describeBitmap(bitmap) {
    return {
        ...(bitmap.name === null ? {} : { name: bitmap.name }),
        recording: bitmap.recording,
        persistent: bitmap.persistent,
        busy: bitmap.busy,
        granularity: bitmap.granularity,
        count: bitmap.count,
        ...(bitmap.inconsistent ? { inconsistent: true } : {}),
    };
}
