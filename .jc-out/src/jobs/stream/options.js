// SPDX-License-Identifier: Apache-2.0
// Arguments of `block-stream`; pure data.
import { blockdevOnError } from '../options.js';
import { bool, int, optional, str, struct } from '../../schema/index.js';
export const streamOptions = struct('block-stream-arg', {
    'job-id': optional(str),
    device: str,
    base: optional(str),
    'base-node': optional(str),
    'backing-file': optional(str),
    bottom: optional(str),
    speed: optional(int),
    'on-error': optional(blockdevOnError),
    'filter-node-name': optional(str),
    'auto-finalize': optional(bool),
    'auto-dismiss': optional(bool),
});
