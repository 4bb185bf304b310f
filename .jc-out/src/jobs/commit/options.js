// SPDX-License-Identifier: Apache-2.0
// Arguments of `block-commit`; pure data.
import { blockdevOnError } from '../options.js';
import { bool, int, optional, str, struct } from '../../schema/index.js';
export const commitOptions = struct('block-commit-arg', {
    'job-id': optional(str),
    device: str,
    'base-node': optional(str),
    base: optional(str, { features: ['deprecated'] }),
    'top-node': optional(str),
    top: optional(str, { features: ['deprecated'] }),
    'backing-file': optional(str),
    speed: optional(int),
    'on-error': optional(blockdevOnError),
    'filter-node-name': optional(str),
    'auto-finalize': optional(bool),
    'auto-dismiss': optional(bool),
});
