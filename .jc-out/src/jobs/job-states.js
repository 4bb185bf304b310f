// SPDX-License-Identifier: Apache-2.0
// The two tables of the job API: which status may follow which, and which verbs a status accepts.
//
// They are exactly those of the reference. A transition that NEXT does not list is a programmer's
// mistake; a verb that VERBS does not list is a refusal with a fixed wording.
import { assert, BlockError } from '../base/index.js';
export const JOB_TYPES = ['commit', 'stream', 'mirror', 'backup', 'create', 'amend'];
export const JOB_STATUSES = [
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
];
export const JOB_VERBS = [
    'cancel',
    'pause',
    'resume',
    'set-speed',
    'complete',
    'finalize',
    'dismiss',
    'change',
];
export const NEXT = {
    undefined: ['created'],
    created: ['running', 'aborting', 'null'],
    running: ['paused', 'ready', 'waiting', 'aborting'],
    paused: ['running'],
    ready: ['standby', 'waiting', 'aborting'],
    standby: ['ready'],
    waiting: ['pending', 'aborting'],
    pending: ['aborting', 'concluded'],
    aborting: ['aborting', 'concluded'],
    concluded: ['null'],
    null: [],
};
const ACTIVE = ['created', 'running', 'paused', 'ready', 'standby'];
export const VERBS = {
    cancel: [...ACTIVE, 'waiting', 'pending'],
    pause: ACTIVE,
    resume: ACTIVE,
    'set-speed': ACTIVE,
    change: ACTIVE,
    complete: ['ready', 'standby'],
    finalize: ['pending'],
    dismiss: ['concluded'],
};
export function assertTransition(from, to) {
    assert(NEXT[from].includes(to), `job status ${from} cannot become ${to}`);
}
/** Throws kind `invalid-state` when a job in `status` does not accept `verb`. */
export function requireVerb(id, status, verb) {
    if (VERBS[verb].includes(status))
        return;
    throw new BlockError('invalid-state', `Job '${id}' in state '${status}' cannot accept command verb '${verb}'`);
}
