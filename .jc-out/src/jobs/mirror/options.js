// SPDX-License-Identifier: Apache-2.0
// Arguments of `blockdev-mirror` and `drive-mirror`; pure data.
import { blockdevOnError, mirrorSyncMode, newImageMode } from '../options.js';
import { bool, enumeration, int, optional, str, struct, uint32 } from '../../schema/index.js';
export const mirrorCopyMode = enumeration('MirrorCopyMode', ['background', 'write-blocking']);
export const mirrorOptions = struct('blockdev-mirror-arg', {
    'job-id': optional(str),
    device: str,
    target: str,
    replaces: optional(str),
    sync: mirrorSyncMode,
    speed: optional(int),
    granularity: optional(uint32),
    'buf-size': optional(int),
    'on-source-error': optional(blockdevOnError),
    'on-target-error': optional(blockdevOnError),
    'filter-node-name': optional(str),
    'copy-mode': optional(mirrorCopyMode),
    'auto-finalize': optional(bool),
    'auto-dismiss': optional(bool),
});
export const driveMirrorOptions = struct('DriveMirror', {
    'job-id': optional(str),
    device: str,
    target: str,
    format: optional(str),
    'node-name': optional(str),
    replaces: optional(str),
    sync: mirrorSyncMode,
    mode: optional(newImageMode),
    speed: optional(int),
    granularity: optional(uint32),
    'buf-size': optional(int),
    'on-source-error': optional(blockdevOnError),
    'on-target-error': optional(blockdevOnError),
    unmap: optional(bool),
    'copy-mode': optional(mirrorCopyMode),
    'auto-finalize': optional(bool),
    'auto-dismiss': optional(bool),
});
