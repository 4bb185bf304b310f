// SPDX-License-Identifier: Apache-2.0
// Options of `blkverify`; pure data.
import { blockdevRef } from '../../../block/options.js';
import { struct } from '../../../schema/index.js';
export const blkverifyOptions = struct('BlockdevOptionsBlkverify', {
    /** The image that is tested. */
    test: blockdevRef,
    /** What its content should be. */
    raw: blockdevRef,
});
