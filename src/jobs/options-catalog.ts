// SPDX-License-Identifier: Apache-2.0
// Names of the jobs that exist and the schema of their arguments; pure data.
//
// `create` and `amend` are not listed: their arguments are unions of the drivers' options.

import { backupOptions, driveBackupOptions } from './backup/options.js';
import { commitOptions } from './commit/options.js';
import { driveMirrorOptions, mirrorOptions } from './mirror/options.js';
import { streamOptions } from './stream/options.js';

export const jobOptions = {
  stream: streamOptions,
  commit: commitOptions,
  mirror: mirrorOptions,
  'drive-mirror': driveMirrorOptions,
  backup: backupOptions,
  'drive-backup': driveBackupOptions,
} as const;
