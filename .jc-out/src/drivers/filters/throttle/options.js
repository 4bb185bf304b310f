// SPDX-License-Identifier: Apache-2.0
// Options of `throttle`; pure data.
import { blockdevRef } from '../../../block/options.js';
import { str, struct } from '../../../schema/index.js';
export const throttleOptions = struct('BlockdevOptionsThrottle', {
    /** Id of a throttle-group object. */
    'throttle-group': str,
    file: blockdevRef,
});
