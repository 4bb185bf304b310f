// SPDX-License-Identifier: Apache-2.0
// Commands for jobs of every type (job-*), by job id.
import { bool, command, enumeration, list, optional, str, struct, uint, union, } from '../schema/index.js';
export const jobType = enumeration('JobType', [
    'commit',
    'stream',
    'mirror',
    'backup',
    'create',
    'amend',
]);
export const jobStatus = enumeration('JobStatus', [
    'undefined',
    'created',
    'running',
    'paused',
    'ready',
    'standby',
    'waiting',
    'pending',
    'aborting',
    'concluded',
    'null',
]);
export const jobInfo = struct('JobInfo', {
    id: str,
    type: jobType,
    status: jobStatus,
    'current-progress': uint,
    'total-progress': uint,
    error: optional(str),
});
export const queryJobs = command({
    name: 'query-jobs',
    since: '3.0',
    doc: 'All jobs, in order of creation. The unit of progress is arbitrary.',
    returns: list(jobInfo),
});
const id = { id: str };
export const jobPause = command({
    name: 'job-pause',
    since: '3.0',
    doc: 'Pauses a job at its next pause point; refused when its user paused it already.',
    args: id,
});
export const jobResume = command({
    name: 'job-resume',
    since: '3.0',
    doc: 'Resumes a job that its user paused.',
    args: id,
});
export const jobCancel = command({
    name: 'job-cancel',
    since: '3.0',
    doc: 'Cancels a job at once, whatever it is doing.',
    args: id,
});
export const jobComplete = command({
    name: 'job-complete',
    since: '3.0',
    doc: 'Asks a job that is READY to complete.',
    args: id,
});
export const jobDismiss = command({
    name: 'job-dismiss',
    since: '3.0',
    doc: 'Forgets a CONCLUDED job.',
    args: id,
});
export const jobFinalize = command({
    name: 'job-finalize',
    since: '3.0',
    doc: 'Finalizes all jobs of a PENDING transaction.',
    args: id,
});
export const blockJobIoStatus = enumeration('BlockDeviceIoStatus', ['ok', 'failed', 'nospace']);
export const blockJobInfo = union('BlockJobInfo', {
    base: {
        device: str,
        len: uint,
        offset: uint,
        busy: bool,
        paused: bool,
        speed: uint,
        'io-status': blockJobIoStatus,
        ready: bool,
        status: jobStatus,
        'auto-finalize': bool,
        'auto-dismiss': bool,
        error: optional(str),
    },
    discriminator: 'type',
    tagName: 'JobType',
    branches: {
        commit: null,
        stream: null,
        mirror: struct('BlockJobInfoMirror', { 'actively-synced': bool }),
        backup: null,
        create: null,
        amend: null,
    },
});
