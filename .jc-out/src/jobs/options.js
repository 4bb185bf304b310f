// SPDX-License-Identifier: Apache-2.0
// Enumerations that the arguments of several jobs share; pure data.
import { enumeration } from '../schema/index.js';
export const blockdevOnError = enumeration('BlockdevOnError', [
    'report',
    'ignore',
    'enospc',
    'stop',
    'auto',
]);
export const mirrorSyncMode = enumeration('MirrorSyncMode', [
    'top',
    'full',
    'none',
    'incremental',
    'bitmap',
]);
export const bitmapSyncMode = enumeration('BitmapSyncMode', ['on-success', 'never', 'always']);
/** Whether a drive-* command makes its target file. */
export const newImageMode = enumeration('NewImageMode', ['existing', 'absolute-paths']);
