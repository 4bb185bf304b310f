// SPDX-License-Identifier: Apache-2.0
// Commands for block jobs (block-job-*), and those that start one.
//
// The arguments of a starting command are the job's own options (jobs/<name>/options.ts).

import { mirrorCopyMode } from '../jobs/mirror/options.js';
import { jobOptions } from '../jobs/options-catalog.js';
import { bool, command, int, list, optional, str, struct, union } from '../schema/index.js';
import { blockdevAmendOptions, blockdevCreateOptions } from './blockdev-options.js';
import { blockJobInfo } from './job.js';

export const queryBlockJobs = command({
  name: 'query-block-jobs',
  since: '1.1',
  doc: 'All block jobs; jobs that only create or amend images are not among them.',
  returns: list(blockJobInfo),
});

const device = { device: str } as const;

export const blockJobPause = command({
  name: 'block-job-pause',
  since: '1.3',
  doc: 'Pauses a block job at its next pause point.',
  args: device,
});
export const blockJobResume = command({
  name: 'block-job-resume',
  since: '1.3',
  doc: 'Resumes a block job that its user paused.',
  args: device,
});
export const blockJobCancel = command({
  name: 'block-job-cancel',
  since: '1.1',
  doc: 'Cancels a block job; without force one that its user paused refuses.',
  args: { device: str, force: optional(bool) },
});
export const blockJobComplete = command({
  name: 'block-job-complete',
  since: '1.3',
  doc: 'Asks a block job that is READY to complete.',
  args: device,
});
export const blockJobDismiss = command({
  name: 'block-job-dismiss',
  since: '2.12',
  doc: 'Forgets a CONCLUDED block job.',
  args: { id: str },
});
export const blockJobFinalize = command({
  name: 'block-job-finalize',
  since: '2.12',
  doc: 'Finalizes all jobs of a PENDING transaction.',
  args: { id: str },
});
export const blockJobSetSpeed = command({
  name: 'block-job-set-speed',
  since: '1.1',
  doc: 'Limits a block job to `speed` bytes per second; 0 means no limit.',
  args: { device: str, speed: int },
});

const blockJobChangeOptions = union('BlockJobChangeOptions', {
  base: { id: str },
  discriminator: 'type',
  tagName: 'JobType',
  branches: {
    commit: null,
    stream: null,
    mirror: struct('BlockJobChangeOptionsMirror', { 'copy-mode': mirrorCopyMode }),
    backup: null,
    create: null,
    amend: null,
  },
});

export const blockJobChange = command({
  name: 'block-job-change',
  since: '8.2',
  doc: 'Changes how a running block job works: a mirror goes from background to write-blocking.',
  args: blockJobChangeOptions,
});

export const blockStream = command({
  name: 'block-stream',
  since: '1.1',
  doc: 'Copies data of the backing chain into an image, down to a base or all of it.',
  args: jobOptions.stream,
});

export const blockCommit = command({
  name: 'block-commit',
  since: '1.3',
  doc: 'Moves data of images down into a base; the active layer goes on until told to complete.',
  args: jobOptions.commit,
});

export const blockdevMirror = command({
  name: 'blockdev-mirror',
  since: '2.6',
  doc: 'Copies a node to a target node and keeps them equal until told to complete or cancelled.',
  args: jobOptions.mirror,
});

export const driveMirror = command({
  name: 'drive-mirror',
  since: '1.3',
  doc: 'Copies a node to an image file, made if need be, and keeps them equal.',
  args: jobOptions['drive-mirror'],
});

export const blockdevBackup = command({
  name: 'blockdev-backup',
  since: '2.3',
  doc: 'Copies a node as it is now to a target node while the guest goes on writing.',
  args: jobOptions.backup,
});

export const driveBackup = command({
  name: 'drive-backup',
  since: '1.6',
  doc: 'Copies a node as it is now to an image file, made if need be; use blockdev-backup instead.',
  features: ['deprecated'],
  args: jobOptions['drive-backup'],
});

export const blockdevCreate = command({
  name: 'blockdev-create',
  since: '3.0',
  doc: 'Starts a job that creates an empty image. The job must be dismissed.',
  args: struct('blockdev-create-arg', { 'job-id': str, options: blockdevCreateOptions }),
});

const amendArgs = {
  'job-id': str,
  'node-name': str,
  options: blockdevAmendOptions,
  force: optional(bool),
} as const;

export const xBlockdevAmend = command({
  name: 'x-blockdev-amend',
  since: '5.1',
  doc: 'Starts a job that changes the keyslots of an open image. The job must be dismissed.',
  args: amendArgs,
  features: ['unstable'],
});

export const blockdevAmend = command({
  name: 'blockdev-amend',
  since: '5.1',
  doc: 'x-blockdev-amend by a name that the reference does not have.',
  args: amendArgs,
});
