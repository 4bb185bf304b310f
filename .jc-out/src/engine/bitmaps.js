// SPDX-License-Identifier: Apache-2.0
// What users do with dirty bitmaps, by the names of nodes and bitmaps: commands and transaction
// actions alike.
import { BlockError } from '../base/index.js';
import { addBitmap, mergeBitmaps, requireBitmap, requireBitmapName, } from '../block/index.js';
/** Throws kind `not-found` naming the node or the bitmap. */
export function findNamedBitmap(engine, { node: nodeName, name }) {
    const node = engine.graph.find(nodeName);
    if (node === null)
        throw new BlockError('not-found', `Node '${nodeName}' not found`);
    return { node, bitmap: requireBitmap(node, name) };
}
export function addNamedBitmap(engine, request) {
    const { node: nodeName, persistent, ...options } = request;
    requireBitmapName(options.name);
    const node = engine.jobs.node(nodeName);
    const bitmap = addBitmap(node, options, () => {
        if (persistent !== true)
            return;
        throw new BlockError('unsupported', `Can't store persistent bitmaps to ${nodeName}: Operation not supported`);
    });
    return { node, bitmap };
}
/** Merges into a bitmap, all or nothing; gives it. */
export function mergeNamedBitmaps(engine, request) {
    const { node, target, bitmaps } = request;
    const { bitmap } = findNamedBitmap(engine, { node, name: target });
    mergeBitmaps(bitmap, sourcesOf(engine, node, bitmaps));
    return bitmap;
}
function* sourcesOf(engine, node, bitmaps) {
    for (const source of bitmaps) {
        const named = typeof source === 'string' ? { node, name: source } : source;
        yield findNamedBitmap(engine, named).bitmap;
    }
}
export function strictMerge(request) {
    const { node, dst_name: oldTarget, src_name: oldSource } = request;
    if (oldTarget === undefined && oldSource === undefined) {
        const target = given(request.target, 'target');
        return { node, target, bitmaps: given(request.bitmaps, 'bitmaps') };
    }
    for (const name of ['target', 'bitmaps']) {
        if (request[name] === undefined)
            continue;
        throw new BlockError('invalid-option', `Parameter '${name}' is unexpected`);
    }
    return {
        node,
        target: given(oldTarget, 'dst_name'),
        bitmaps: [given(oldSource, 'src_name')],
    };
}
function given(value, name) {
    if (value !== undefined)
        return value;
    throw new BlockError('invalid-option', `Parameter '${name}' is missing`);
}
