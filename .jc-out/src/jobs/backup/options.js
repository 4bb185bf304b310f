// SPDX-License-Identifier: Apache-2.0
// Arguments of `blockdev-backup` and `drive-backup`; pure data.
import { bitmapSyncMode, blockdevOnError, mirrorSyncMode, newImageMode } from '../options.js';
import { bool, int, optional, size, str, struct } from '../../schema/index.js';
export const backupPerf = struct('BackupPerf', {
    'use-copy-range': optional(bool),
    'max-workers': optional(int),
    'max-chunk': optional(int),
    'min-cluster-size': optional(size),
});
const common = {
    'job-id': optional(str),
    device: str,
    sync: mirrorSyncMode,
    speed: optional(int),
    bitmap: optional(str),
    'bitmap-mode': optional(bitmapSyncMode),
    compress: optional(bool),
    'discard-source': optional(bool),
    'on-source-error': optional(blockdevOnError),
    'on-target-error': optional(blockdevOnError),
    'auto-finalize': optional(bool),
    'auto-dismiss': optional(bool),
    'filter-node-name': optional(str),
    'x-perf': optional(backupPerf, { features: ['unstable'] }),
};
export const backupOptions = struct('BlockdevBackup', { ...common, target: str });
export const driveBackupOptions = struct('DriveBackup', {
    ...common,
    target: str,
    format: optional(str),
    mode: optional(newImageMode),
});
