// SPDX-License-Identifier: Apache-2.0
// Events, each sent to every client that has negotiated.
import { jobStatus, jobType } from './job.js';
import { bool, enumeration, event, optional, str, uint } from '../schema/index.js';
export const jobStatusChange = event({
    name: 'JOB_STATUS_CHANGE',
    since: '3.0',
    doc: 'A job changed its status.',
    data: { id: str, status: jobStatus },
});
const progress = { type: jobType, device: str, len: uint, offset: uint, speed: uint };
export const blockJobCompleted = event({
    name: 'BLOCK_JOB_COMPLETED',
    since: '1.1',
    doc: 'A block job ended, well or (with `error`) not.',
    data: { ...progress, error: optional(str) },
});
export const blockJobCancelled = event({
    name: 'BLOCK_JOB_CANCELLED',
    since: '1.1',
    doc: 'A block job was cancelled.',
    data: progress,
});
export const blockJobReady = event({
    name: 'BLOCK_JOB_READY',
    since: '1.3',
    doc: 'A block job waits for block-job-complete.',
    data: progress,
});
export const blockJobPending = event({
    name: 'BLOCK_JOB_PENDING',
    since: '2.12',
    doc: 'A block job with auto-finalize off waits for job-finalize.',
    data: { type: jobType, id: str },
});
export const ioOperationType = enumeration('IoOperationType', ['read', 'write']);
export const blockErrorAction = enumeration('BlockErrorAction', ['ignore', 'report', 'stop']);
export const blockJobError = event({
    name: 'BLOCK_JOB_ERROR',
    since: '1.3',
    doc: 'A block job met an I/O error; `action` says what its policy made of it.',
    data: { device: str, operation: ioOperationType, action: blockErrorAction },
});
export const blockWriteThreshold = event({
    name: 'BLOCK_WRITE_THRESHOLD',
    since: '2.3',
    doc: 'A write went past the threshold of a node, which is thereby switched off.',
    data: { 'node-name': str, 'amount-exceeded': uint, 'write-threshold': uint },
});
export const blockImageCorrupted = event({
    name: 'BLOCK_IMAGE_CORRUPTED',
    since: '1.7',
    doc: 'An image was found corrupt; when fatal it takes no more writes.',
    data: {
        device: str,
        'node-name': optional(str),
        msg: str,
        offset: optional(uint),
        size: optional(uint),
        fatal: bool,
    },
});
export const quorumOpType = enumeration('QuorumOpType', ['read', 'write', 'flush']);
export const quorumFailure = event({
    name: 'QUORUM_FAILURE',
    since: '2.0',
    doc: 'Too few children of a quorum agree or succeed. Sectors are of 512 bytes.',
    data: { reference: str, 'sector-num': uint, 'sectors-count': uint },
});
export const quorumReportBad = event({
    name: 'QUORUM_REPORT_BAD',
    since: '2.0',
    doc: 'A child of a quorum failed with `error`, or was outvoted. Sectors are of 512 bytes.',
    data: {
        type: quorumOpType,
        error: optional(str),
        'node-name': str,
        'sector-num': uint,
        'sectors-count': uint,
    },
});
