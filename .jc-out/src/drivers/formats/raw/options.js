// SPDX-License-Identifier: Apache-2.0
// Options of the raw driver. Pure data.
import { blockdevRef } from '../../../block/options.js';
import { optional, struct, uint } from '../../../schema/index.js';
export const rawOptions = struct('BlockdevOptionsRaw', {
    file: blockdevRef,
    /** Bytes into the file at which the node begins; multiples of 512. */
    offset: optional(uint),
    /** Bytes; absent: to the end of the file. */
    size: optional(uint),
});
