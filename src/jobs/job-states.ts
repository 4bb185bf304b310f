// SPDX-License-Identifier: Apache-2.0
// The two tables of the job API: which status may follow which, and which verbs a status accepts.
//
// They are exactly those of the reference. A transition that NEXT does not list is a programmer's
// mistake; a verb that VERBS does not list is a refusal with a fixed wording.

import { assert, BlockError } from '../base/index.js';

export const JOB_TYPES = ['commit', 'stream', 'mirror', 'backup', 'create', 'amend'] as const;
export type JobType = (typeof JOB_TYPES)[number];

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
] as const;
export type JobStatus = (typeof JOB_STATUSES)[number];

export const JOB_VERBS = [
  'cancel',
  'pause',
  'resume',
  'set-speed',
  'complete',
  'finalize',
  'dismiss',
  'change',
] as const;
export type JobVerb = (typeof JOB_VERBS)[number];

export const NEXT: Readonly<Record<JobStatus, readonly JobStatus[]>> = {
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

const ACTIVE: readonly JobStatus[] = ['created', 'running', 'paused', 'ready', 'standby'];

export const VERBS: Readonly<Record<JobVerb, readonly JobStatus[]>> = {
  cancel: [...ACTIVE, 'waiting', 'pending'],
  pause: ACTIVE,
  resume: ACTIVE,
  'set-speed': ACTIVE,
  change: ACTIVE,
  complete: ['ready', 'standby'],
  finalize: ['pending'],
  dismiss: ['concluded'],
};

export function assertTransition(from: JobStatus, to: JobStatus): void {
  assert(NEXT[from].includes(to), `job status ${from} cannot become ${to}`);
}

/** Throws kind `invalid-state` when a job in `status` does not accept `verb`. */
export function requireVerb(id: string, status: JobStatus, verb: JobVerb): void {
  if (VERBS[verb].includes(status)) return;
  throw new BlockError(
    'invalid-state',
    `Job '${id}' in state '${status}' cannot accept command verb '${verb}'`,
  );
}
