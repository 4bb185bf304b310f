// SPDX-License-Identifier: Apache-2.0
// Every verb in every state of every type of job, compared with a real daemon: class and words of
// the refusals, events of what is accepted. States that only transactions show are unit-tested.

import { join } from 'node:path';
import { describe, it } from 'vitest';

import { compare, hasReference, hello, withoutOffset } from '../helpers/reference.js';
import { command, untilEvent } from '../helpers/transcript.js';
import type { Line, Step } from '../helpers/transcript.js';

const JOBS = {
  stream: ['block-stream', { device: 'over' }],
  commit: ['block-commit', { device: 'top', 'top-node': 'over' }],
  backup: ['blockdev-backup', { device: 'over', target: 'copy', sync: 'full' }],
  mirror: ['blockdev-mirror', { device: 'over', target: 'copy', sync: 'full' }],
  active: ['block-commit', { device: 'over' }],
} as const satisfies Record<string, readonly [string, Line]>;

type JobName = keyof typeof JOBS;
type State = 'running' | 'paused' | 'ready' | 'standby' | 'pending' | 'concluded';

const isReadying = (job: JobName): boolean => job === 'mirror' || job === 'active';

/** What has data in it lies on top, or below an empty image when its data is committed. */
function open(directory: string, job: JobName): Step[] {
  const add = (name: string, backing: string | null): string =>
    command('blockdev-add', {
      driver: 'qcow2',
      'node-name': name,
      backing,
      file: { driver: 'file', filename: join(directory, `${name}.qcow2`) },
    });
  const above = job === 'commit' ? [add('top', 'over')] : [];
  return [add('base', null), add('over', 'base'), ...above, add('copy', null)];
}

/** Brings a new job `j` to the state. */
function enter(job: JobName, state: State): Step[] {
  const [name, args] = JOBS[job];
  const start = (event: string, extra: Line = {}): Step =>
    untilEvent(event, name, { 'job-id': 'j', 'auto-dismiss': false, ...args, ...extra });
  const pause = (event: string): Step => untilEvent(event, 'job-pause', { id: 'j' });
  const complete = (event: string): Step => untilEvent(event, 'job-complete', { id: 'j' });
  switch (state) {
    case 'running':
      return [start('running j', { speed: 4096 })];
    case 'paused':
      return [start('running j', { speed: 4096 }), pause('paused j')];
    case 'ready':
      return [start('BLOCK_JOB_READY')];
    case 'standby':
      return [start('BLOCK_JOB_READY'), pause('standby j')];
    case 'pending': {
      const byHand = { 'auto-finalize': false };
      if (!isReadying(job)) return [start('BLOCK_JOB_PENDING', byHand)];
      return [start('BLOCK_JOB_READY', byHand), complete('BLOCK_JOB_PENDING')];
    }
    case 'concluded':
      if (!isReadying(job)) return [start('concluded j')];
      return [start('BLOCK_JOB_READY'), complete('concluded j')];
  }
}

/** Verbs that do not change the state: refused ones, and a new speed. */
const IDLE: Readonly<Record<State, readonly string[]>> = {
  running: ['resume', 'complete', 'finalize', 'dismiss', 'set-speed'],
  paused: ['pause', 'complete', 'finalize', 'dismiss', 'set-speed', 'cancel-softly'],
  ready: ['resume', 'finalize', 'dismiss', 'set-speed'],
  standby: ['pause', 'finalize', 'dismiss', 'set-speed', 'cancel-softly'],
  pending: ['pause', 'resume', 'complete', 'dismiss', 'set-speed'],
  concluded: [
    'pause', 'resume', 'complete', 'finalize', 'cancel', 'set-speed', 'cancel-softly',
  ],
};

/** Verbs that do, with the event to wait for. */
const ACTING: Readonly<Record<State, readonly (readonly [string, string])[]>> = {
  running: [['cancel', 'concluded j'], ['cancel-softly', 'concluded j']],
  paused: [['cancel', 'concluded j'], ['resume', 'running j'], ['force', 'concluded j']],
  ready: [
    ['cancel', 'concluded j'], ['cancel-softly', 'concluded j'], ['complete', 'concluded j'],
  ],
  standby: [['cancel', 'concluded j'], ['resume', 'ready j'], ['force', 'concluded j']],
  pending: [['finalize', 'concluded j'], ['cancel', 'concluded j']],
  concluded: [['dismiss', 'null j']],
};

/** A verb as the commands of both families spell it; some are of one family. */
function spelled(verb: string): readonly (readonly [string, Line])[] {
  const soft: readonly [string, Line] = ['block-job-cancel', { device: 'j' }];
  if (verb === 'cancel-softly') return [soft];
  if (verb === 'force') return [['block-job-cancel', { device: 'j', force: true }]];
  if (verb === 'cancel') return [['job-cancel', { id: 'j' }]];
  if (verb === 'set-speed') {
    const speeds = [4096, 0, -1];
    return speeds.map((speed) => ['block-job-set-speed', { device: 'j', speed }]);
  }
  const member = verb === 'finalize' || verb === 'dismiss' ? 'id' : 'device';
  return [
    [`job-${verb}`, { id: 'j' }],
    [`block-job-${verb}`, { [member]: 'j' }],
  ];
}

/** Progress is chance, and so is whether a job with work in flight is answered first. */
function plain(line: Line): Line | null {
  if (JSON.stringify(line) === '{"return":{}}') return null;
  const chance = ['current-progress', 'total-progress', 'len', 'busy'];
  const text = JSON.stringify(line, (key, value: unknown) => (chance.includes(key) ? 0 : value));
  return withoutOffset(JSON.parse(text) as Line);
}

function idleSteps(state: State): Step[] {
  // A new speed would let a slow job run.
  const speedless = ['running', 'paused'].includes(state);
  return IDLE[state]
    .flatMap(spelled)
    .filter(([, args]) => !(speedless && args['speed'] === 0))
    .map(([name, args]) => command(name, args));
}

describe.skipIf(!hasReference)('as a real daemon takes verbs', () => {
  for (const job of Object.keys(JOBS) as JobName[]) {
    for (const state of Object.keys(IDLE) as State[]) {
      if ((state === 'ready' || state === 'standby') && !isReadying(job)) continue;
      // Both families end a job in the same way: each job takes one of them.
      const family = job === 'commit' || job === 'active' ? -1 : 0;
      it(`${job} that is ${state}`, async () => {
        for (const [verb, event] of ACTING[state]) {
          // Whether anything is left to do then is chance.
          if (family === -1 && state === 'paused' && verb === 'resume') continue;
          const [name, args] = spelled(verb).at(family) as readonly [string, Line];
          await compare((directory) => [
            hello,
            ...open(directory, job),
            ...enter(job, state),
            ...idleSteps(state),
            command('query-jobs'),
            command('query-block-jobs'),
            untilEvent(event, name, args),
            command('query-jobs'),
          ], plain);
        }
      });
    }
  }

  it('create jobs are no block jobs, and unknown ones are unknown in two ways', () =>
    compare((directory) => {
      const verbs = ['pause', 'resume', 'complete', 'finalize', 'dismiss', 'set-speed', 'cancel'];
      const all = (id: string): string[] =>
        [...verbs, 'cancel-softly', 'force'].flatMap(spelled).map(([name, args]) => {
          const member = 'id' in args ? 'id' : 'device';
          return command(name, { ...args, [member]: id });
        });
      return [
        hello,
        ...all('nobody'),
        ...all(''),
        untilEvent('concluded j', 'blockdev-create', {
          'job-id': 'j',
          options: { driver: 'file', filename: join(directory, 'new.img'), size: 0 },
        }),
        ...all('j').filter((each) => !each.includes('"job-dismiss"')),
        command('query-jobs'),
        command('query-block-jobs'),
        command('job-dismiss', { id: 'j' }),
      ];
    }));
});
