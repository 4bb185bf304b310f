// SPDX-License-Identifier: Apache-2.0
// Commands for dirty bitmaps.
import { blockDirtyBitmap } from '../block/options.js';
import { alternate, bool, command, list, optional, str, struct, uint32 } from '../schema/index.js';
export const blockDirtyBitmapAddOptions = struct('BlockDirtyBitmapAdd', {
    node: str,
    name: str,
    granularity: optional(uint32),
    persistent: optional(bool),
    disabled: optional(bool),
});
export const blockDirtyBitmapAdd = command({
    name: 'block-dirty-bitmap-add',
    since: '2.4',
    doc: 'Adds a bitmap that records writes to a node from now on.',
    args: blockDirtyBitmapAddOptions,
});
export const blockDirtyBitmapRemove = command({
    name: 'block-dirty-bitmap-remove',
    since: '2.4',
    doc: 'Removes a bitmap, from disk too when it is persistent.',
    args: blockDirtyBitmap,
});
export const blockDirtyBitmapClear = command({
    name: 'block-dirty-bitmap-clear',
    since: '2.4',
    doc: 'Marks everything clean.',
    args: blockDirtyBitmap,
});
export const blockDirtyBitmapEnable = command({
    name: 'block-dirty-bitmap-enable',
    since: '4.0',
    doc: 'Lets a bitmap record writes.',
    args: blockDirtyBitmap,
});
export const blockDirtyBitmapDisable = command({
    name: 'block-dirty-bitmap-disable',
    since: '4.0',
    doc: 'Stops a bitmap from recording writes.',
    args: blockDirtyBitmap,
});
const bitmapOrStr = alternate('BlockDirtyBitmapOrStr', {
    local: str,
    external: blockDirtyBitmap,
});
export const blockDirtyBitmapMergeOptions = struct('BlockDirtyBitmapMerge', {
    node: str,
    target: str,
    bitmaps: list(bitmapOrStr),
});
export const blockDirtyBitmapMerge = command({
    name: 'block-dirty-bitmap-merge',
    since: '4.0',
    doc: 'Adds to a bitmap what is dirty in any of the others: all of them, or nothing.',
    args: blockDirtyBitmapMergeOptions,
});
export const debugBlockDirtyBitmapSha256 = command({
    name: 'x-debug-block-dirty-bitmap-sha256',
    since: '2.10',
    doc: 'Gives the SHA-256 of the bits.',
    features: ['unstable'],
    args: blockDirtyBitmap,
    returns: struct('BlockDirtyBitmapSha256', { sha256: str }),
});
/** The first shape has one source, `src_name`, of the same node; the second is that of today. */
export const looseBitmapMergeOptions = struct('XBlockDirtyBitmapMerge', {
    node: str,
    target: optional(str),
    bitmaps: optional(list(bitmapOrStr)),
    dst_name: optional(str),
    src_name: optional(str),
});
export const xBlockDirtyBitmapEnable = command({
    name: 'x-block-dirty-bitmap-enable',
    since: '3.0',
    doc: 'The old name of block-dirty-bitmap-enable.',
    features: ['deprecated', 'unstable'],
    args: blockDirtyBitmap,
});
export const xBlockDirtyBitmapDisable = command({
    name: 'x-block-dirty-bitmap-disable',
    since: '3.0',
    doc: 'The old name of block-dirty-bitmap-disable.',
    features: ['deprecated', 'unstable'],
    args: blockDirtyBitmap,
});
export const xBlockDirtyBitmapMerge = command({
    name: 'x-block-dirty-bitmap-merge',
    since: '3.0',
    doc: 'The old name of block-dirty-bitmap-merge, with its old arguments or those of today.',
    features: ['deprecated', 'unstable'],
    args: looseBitmapMergeOptions,
});
