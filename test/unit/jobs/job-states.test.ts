// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from 'vitest';
import {
  assertTransition,
  JOB_STATUSES,
  JOB_VERBS,
  requireVerb,
} from '../../../src/jobs/job-states.js';
import type { JobStatus, JobVerb } from '../../../src/jobs/job-states.js';

// Written out here a second time, from the reference's behaviour, not imported.
const NEXT: Record<JobStatus, string> = {
  undefined: 'created',
  created: 'running aborting null',
  running: 'paused ready waiting aborting',
  paused: 'running',
  ready: 'standby waiting aborting',
  standby: 'ready',
  waiting: 'pending aborting',
  pending: 'aborting concluded',
  aborting: 'aborting concluded',
  concluded: 'null',
  null: '',
};
const ACCEPTED: Record<JobVerb, string> = {
  cancel: 'created running paused ready standby waiting pending',
  pause: 'created running paused ready standby',
  resume: 'created running paused ready standby',
  'set-speed': 'created running paused ready standby',
  change: 'created running paused ready standby',
  complete: 'ready standby',
  finalize: 'pending',
  dismiss: 'concluded',
};

describe('job states', () => {
  for (const from of JOB_STATUSES) {
    for (const to of JOB_STATUSES) {
      const legal = NEXT[from].split(' ').includes(to);
      it(`${from} ${legal ? 'may' : 'must not'} become ${to}`, () => {
        const attempt = (): void => assertTransition(from, to);
        if (legal) expect(attempt).not.toThrow();
        else expect(attempt).toThrow(/assertion failed: job status/);
      });
    }
  }
  for (const verb of JOB_VERBS) {
    for (const status of JOB_STATUSES) {
      const legal = ACCEPTED[verb].split(' ').includes(status);
      it(`${verb} is ${legal ? 'accepted' : 'refused'} in ${status}`, () => {
        const attempt = (): void => requireVerb('j0', status, verb);
        if (legal) expect(attempt).not.toThrow();
        else {
          expect(attempt).toThrow(
            `Job 'j0' in state '${status}' cannot accept command verb '${verb}'`,
          );
        }
      });
    }
  }
});
