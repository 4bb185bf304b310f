// SPDX-License-Identifier: Apache-2.0
// Options of `preallocate`; pure data.
import { blockdevRef } from '../../../block/options.js';
import { int, optional, struct } from '../../../schema/index.js';
export const preallocateOptions = struct('BlockdevOptionsPreallocate', {
    file: blockdevRef,
    /** Bytes; the file ends at a multiple of it. */
    'prealloc-align': optional(int),
    /** Bytes beyond the end of a write that grows the file. */
    'prealloc-size': optional(int),
});
