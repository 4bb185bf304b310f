// SPDX-License-Identifier: Apache-2.0
// Options of `copy-on-read`; pure data.
import { blockdevRef } from '../../../block/options.js';
import { optional, str, struct } from '../../../schema/index.js';
export const copyOnReadOptions = struct('BlockdevOptionsCor', {
    file: blockdevRef,
    bottom: optional(str),
});
