// SPDX-License-Identifier: Apache-2.0
export { startAmend } from './amend/index.js';
export { prepareBackup, prepareDriveBackup } from './backup/index.js';
export { startCommit } from './commit/index.js';
export { startCreate } from './create/index.js';
export { Job } from './job.js';
export type { BlockJobInfo, IoStatus, JobEvent, JobInfo, JobWork } from './job-work.js';
export * from './job-states.js';
export { JobTransaction } from './job-transaction.js';
export { startDriveMirror, startMirror } from './mirror/index.js';
export { createImageFile, hasBacking } from './new-image.js';
export { JobRegistry } from './registry.js';
export type { JobRegistryOptions } from './registry.js';
export type { PreparedJob } from './start.js';
export { startStream } from './stream/index.js';
