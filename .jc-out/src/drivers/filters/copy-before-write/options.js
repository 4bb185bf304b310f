// SPDX-License-Identifier: Apache-2.0
// Options of `copy-before-write`; pure data.
import { blockDirtyBitmap, blockdevRef } from '../../../block/options.js';
import { enumeration, optional, size, struct, uint32 } from '../../../schema/index.js';
export const onCbwError = enumeration('OnCbwError', ['break-guest-write', 'break-snapshot']);
export const copyBeforeWriteOptions = struct('BlockdevOptionsCbw', {
    file: blockdevRef,
    target: blockdevRef,
    'on-cbw-error': optional(onCbwError),
    'cbw-timeout': optional(uint32),
    bitmap: optional(blockDirtyBitmap),
    'min-cluster-size': optional(size),
});
