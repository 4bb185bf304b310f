// SPDX-License-Identifier: Apache-2.0
// Options of `blklogwrites`; pure data.
import { blockdevRef } from '../../../block/options.js';
import { bool, optional, struct, uint, uint32 } from '../../../schema/index.js';
export const blklogwritesOptions = struct('BlockdevOptionsBlklogwrites', {
    file: blockdevRef,
    /** Where the log goes. */
    log: blockdevRef,
    /** Bytes; 512 unless given. */
    'log-sector-size': optional(uint32),
    /** Go on behind the entries that the log has already. */
    'log-append': optional(bool),
    /** Entries after which the superblock is written, besides at every flush; 4096 unless given. */
    'log-super-update-interval': optional(uint),
});
