// SPDX-License-Identifier: Apache-2.0
// The dirty bitmaps of nodes: named ones that users manage, and private ones of jobs. All record
// writes through one observer each; a bitmap that is busy cannot be changed by users.
import { assert, BITMAP_LIMITS, BlockError, NAME_LIMITS } from '../../base/index.js';
import { infoBelow } from '../inherited-info.js';
import { DirtyBitmap, isGranularity } from './dirty-bitmap.js';
/** Granularity when none is asked for and the image has no clusters, in bytes. */
const DEFAULT_GRANULARITY = 65_536;
const MIN_DEFAULT_GRANULARITY = 4096;
const bitmapsByNode = new WeakMap();
function attached(node) {
    let list = bitmapsByNode.get(node);
    if (list === undefined) {
        list = [];
        bitmapsByNode.set(node, list);
    }
    return list;
}
/** All named bitmaps of a node, oldest first. */
export function bitmapsOf(node) {
    return shownBitmapsOf(node).filter((shown) => shown instanceof DirtyBitmap && shown.name !== null);
}
/** What queries show of a node, oldest first. */
export function shownBitmapsOf(node) {
    return attached(node).map((entry) => ('bitmap' in entry ? entry.bitmap : entry.bits));
}
/** Queries show the bits until the result is called. */
export function showBits(node, bits) {
    const list = attached(node);
    const entry = { bits };
    list.push(entry);
    return () => void list.splice(list.indexOf(entry), 1);
}
export function findBitmap(node, name) {
    return bitmapsOf(node).find((bitmap) => bitmap.name === name) ?? null;
}
/** Throws kind `not-found` naming the bitmap. */
export function requireBitmap(node, name) {
    const bitmap = findBitmap(node, name);
    if (bitmap !== null)
        return bitmap;
    throw new BlockError('not-found', `Dirty bitmap '${name}' not found`, { node: node.name });
}
/** Of the format below filters. */
function defaultGranularity(node) {
    const cluster = infoBelow(node).clusterSize ?? DEFAULT_GRANULARITY;
    return Math.max(MIN_DEFAULT_GRANULARITY, Math.min(cluster, DEFAULT_GRANULARITY));
}
export function requireBitmapName(name) {
    if (name === '')
        throw new BlockError('invalid-option', 'Bitmap name cannot be empty');
}
/** Adds a named bitmap, or refuses the name or granularity. */
export function addBitmap(node, options, 
/** Further checks, between those of the granularity and the name. */
check = () => undefined) {
    const { name } = options;
    requireBitmapName(name);
    const granularity = options.granularity ?? defaultGranularity(node);
    if (!isGranularity(granularity)) {
        throw new BlockError('invalid-option', 'Granularity must be power of 2 and at least 512');
    }
    check();
    if (Buffer.byteLength(name) > NAME_LIMITS.bitmapNameBytes) {
        throw new BlockError('invalid-option', `Bitmap name too long: ${name}`);
    }
    if (findBitmap(node, name) !== null) {
        throw new BlockError('exists', `Bitmap already exists: ${name}`, { node: node.name });
    }
    if (node.length / granularity > BITMAP_LIMITS.bits) {
        throw new BlockError('invalid-option', `Bitmap '${name}' of node '${node.name}' would have more than ${BITMAP_LIMITS.bits} bits: ` +
            `granularity ${granularity} is too small for ${node.length} bytes`, { node: node.name });
    }
    return attachBitmap(node, {
        name,
        size: node.length,
        granularity,
        enabled: options.disabled !== true,
    });
}
/** Makes a bitmap that records the node's writes from now on. */
export function attachBitmap(node, options) {
    const bitmap = new DirtyBitmap(options);
    const detach = node.addObserver({
        afterWrite(offset, length) {
            // Files grow by writing.
            if (offset + length > bitmap.size)
                bitmap.resize(node.length);
            if (bitmap.enabled)
                bitmap.set(offset, length);
        },
        afterResize: (length) => bitmap.resize(length),
    });
    attached(node).push({ bitmap, detach });
    return bitmap;
}
/** Ends recording; the bitmap itself stays usable for its owner. */
export function detachBitmap(node, bitmap) {
    const list = attached(node);
    const at = list.findIndex((entry) => 'bitmap' in entry && entry.bitmap === bitmap);
    const found = list[at];
    assert(found !== undefined && 'bitmap' in found, `bitmap belongs to node '${node.name}'`);
    found.detach();
    list.splice(at, 1);
}
/** Refuses what users may not do with a bitmap that is busy, read-only or inconsistent. */
export function checkBitmapUsable(bitmap, use) {
    const name = bitmap.name ?? '';
    if (bitmap.busy) {
        throw new BlockError('busy', `Bitmap '${name}' is currently in use by another operation and cannot be used`);
    }
    if (bitmap.readOnly && use !== 'use') {
        throw new BlockError('read-only', `Bitmap '${name}' is readonly and cannot be modified`);
    }
    if (bitmap.inconsistent && use !== 'remove') {
        throw new BlockError('invalid-state', `Bitmap '${name}' is inconsistent and cannot be used`, { hint: 'Try block-dirty-bitmap-remove to delete this bitmap from disk' });
    }
}
export function removeBitmap(node, name) {
    const bitmap = requireBitmap(node, name);
    checkBitmapUsable(bitmap, 'remove');
    detachBitmap(node, bitmap);
}
export function clearBitmap(node, name) {
    const bitmap = requireBitmap(node, name);
    checkBitmapUsable(bitmap, 'change');
    bitmap.clearAll();
}
export function setRecording(node, name, on) {
    const bitmap = requireBitmap(node, name);
    checkBitmapUsable(bitmap, 'use');
    bitmap.enabled = on;
}
