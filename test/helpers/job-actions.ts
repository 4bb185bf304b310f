// SPDX-License-Identifier: Apache-2.0
// Everything that may come over a job: the verbs of its user, drained sections, requests of a
// guest, errors under each policy, the end of the daemon and its death.
import { oneOf } from './interrupted-job.js';
import type { InterruptedJob } from './interrupted-job.js';
import type { Arguments } from './job-cases.js';

export interface JobAction {
  /** Error policy of the job, on both sides. */
  readonly policy?: string;
  act(life: InterruptedJob): void;
}

const POLICIES = ['report', 'ignore', 'stop', 'enospc', 'auto'] as const;
const SOURCES = ['base.qcow2', 'mid.qcow2', 'top.qcow2'];
const TARGETS = ['target.qcow2', 'made.qcow2', 'top.qcow2', 'base.qcow2'];
const NODES = ['top', 'mid', 'base', 'target', 'other'];

function send(command: string, args: Arguments): JobAction {
  return { act: (life) => life.send([command, args]) };
}

function fault(side: 'read' | 'write', lasting: boolean, policy: string): JobAction {
  return {
    policy,
    act(life) {
      life.faulty = true;
      const { random } = life;
      const path = oneOf(random, side === 'read' ? SOURCES : TARGETS);
      const errno = oneOf(random, ['EIO', 'ENOSPC']);
      life.host.faults.add({ operation: side, nth: 1, path, errno, lasting });
    },
  };
}

const errors = (['read', 'write'] as const).flatMap((side) =>
  [false, true].flatMap((lasting) =>
    POLICIES.map((policy): [string, JobAction] => [
      `${lasting ? 'lasting ' : ''}${side} error, ${policy}`,
      fault(side, lasting, policy),
    ]),
  ),
);

const device = 'j';
const id = 'j';

export const JOB_ACTIONS: Readonly<Record<string, JobAction>> = {
  cancel: send('job-cancel', { id }),
  'soft cancel': send('block-job-cancel', { device }),
  'forced cancel': send('block-job-cancel', { device, force: true }),
  pause: send('job-pause', { id }),
  'pause and resume': {
    act(life) {
      life.send(['block-job-pause', { device }]);
      life.send(['block-job-resume', { device }]);
    },
  },
  'pause and cancel': {
    act(life) {
      life.send(['job-pause', { id }]);
      life.send(oneOf(life.random, [
        ['job-cancel', { id }],
        ['block-job-cancel', { device, force: true }],
      ] as const));
    },
  },
  'new speed': {
    act: (life) =>
      life.send(['block-job-set-speed', { device, speed: oneOf(life.random, [0, 2 ** 20]) }]),
  },
  completion: send('job-complete', { id }),
  'completion and cancel': {
    act(life) {
      life.send(['block-job-complete', { device }]);
      life.send(['block-job-cancel', { device, force: life.random.chance(0.5) }]);
    },
  },
  change: send('block-job-change', { id, type: 'mirror', 'copy-mode': 'write-blocking' }),
  finalizing: send('job-finalize', { id }),
  dismissal: send('job-dismiss', { id }),
  drain: { act: (life) => life.hold(oneOf(life.random, NODES)) },
  'drain and cancel': {
    act(life) {
      life.hold(oneOf(life.random, NODES));
      life.send(['job-cancel', { id }]);
    },
  },
  'guest request': { act: (life) => life.guestActs() },
  'failing flush': {
    act(life) {
      life.faulty = true;
      const path = oneOf(life.random, TARGETS);
      life.host.faults.add({ operation: 'sync', nth: 1, path, errno: 'EIO' });
    },
  },
  'failing call': {
    act(life) {
      life.faulty = true;
      const operation = oneOf(life.random, ['open', 'create', 'truncate', 'lock'] as const);
      const nth = 1 + life.random.below(3);
      life.host.faults.add({ operation, nth, errno: 'EIO' });
    },
  },
  kill: { act: (life) => life.kill() },
  quit: {
    act(life) {
      life.faulty = true;
      life.quit();
    },
  },
  ...Object.fromEntries(errors),
};
