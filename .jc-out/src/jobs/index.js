// SPDX-License-Identifier: Apache-2.0
export { prepareBackup, prepareDriveBackup, startBackup, startDriveBackup, } from './backup/index.js';
export { startCommit } from './commit/index.js';
export { startCreate } from './create/index.js';
export { Job } from './job.js';
export * from './job-states.js';
export { JobTransaction } from './job-transaction.js';
export { startDriveMirror, startMirror } from './mirror/index.js';
export { createImageFile, hasBacking } from './new-image.js';
export { JobRegistry } from './registry.js';
export { startStream } from './stream/index.js';
