// SPDX-License-Identifier: Apache-2.0
// Option types that every driver's options share; pure data.
//
// `blockdevOptions` is the union of all drivers' options. It is defined (src/api) from the drivers'
// own schemas, which refer to it, so it is deferred here. BLOCKDEV_BASE are the members that every
// node has; a driver's own struct must not repeat them.
import { alternate, bool, deferred, enumeration, nothing, optional, str, struct, } from '../schema/index.js';
export const discardOptions = enumeration('BlockdevDiscardOptions', ['ignore', 'unmap']);
export const detectZeroesOptions = enumeration('BlockdevDetectZeroesOptions', [
    'off',
    'on',
    'unmap',
]);
export const cacheOptions = struct('BlockdevCacheOptions', {
    direct: optional(bool),
    'no-flush': optional(bool),
});
/** A dirty bitmap by its node and its name. */
export const blockDirtyBitmap = struct('BlockDirtyBitmap', { node: str, name: str });
export const preallocMode = enumeration('PreallocMode', ['off', 'metadata', 'falloc', 'full']);
export const BLOCKDEV_BASE = {
    'node-name': optional(str),
    discard: optional(discardOptions),
    cache: optional(cacheOptions),
    'read-only': optional(bool),
    'auto-read-only': optional(bool),
    'force-share': optional(bool),
    'detect-zeroes': optional(detectZeroesOptions),
};
export const blockdevOptions = deferred('BlockdevOptions');
/** A node name, or the options of a node that is opened in place and closed with its parent. */
export const blockdevRef = alternate('BlockdevRef', {
    definition: blockdevOptions,
    reference: str,
});
export const blockdevRefOrNull = alternate('BlockdevRefOrNull', { definition: blockdevOptions, reference: str, null: nothing });
