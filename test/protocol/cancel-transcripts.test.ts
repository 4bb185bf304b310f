// SPDX-License-Identifier: Apache-2.0
// A cancel of every type of job in every state, in each of its three forms, compared with a real
// daemon: which events come, and which of them before the reply.

import { join } from 'node:path';
import { describe, it } from 'vitest';

import { compare, hasReference, hello, openAll, withoutOffset } from '../helpers/reference.js';
import { command, untilEvent } from '../helpers/transcript.js';
import type { Line, Step } from '../helpers/transcript.js';

interface Start {
  readonly verb: string;
  readonly args: Line;
  /** It gets READY and waits there. */
  readonly readies?: boolean;
}

const JOBS: Readonly<Record<string, Start>> = {
  mirror: {
    verb: 'blockdev-mirror',
    args: { device: 'snap', target: 'copy', sync: 'full' },
    readies: true,
  },
  backup: { verb: 'blockdev-backup', args: { device: 'snap', target: 'copy', sync: 'full' } },
  stream: { verb: 'block-stream', args: { device: 'snap', 'base-node': 'top' } },
  commit: {
    verb: 'block-commit',
    args: { device: 'snap', 'top-node': 'over', 'base-node': 'top' },
  },
  'active commit': {
    verb: 'block-commit',
    args: { device: 'snap', 'base-node': 'top' },
    readies: true,
  },
};

const CANCELS: readonly (readonly [string, Line])[] = [
  ['job-cancel', { id: 'j' }],
  ['block-job-cancel', { device: 'j', force: true }],
  ['block-job-cancel', { device: 'j' }],
];

/** Is answered at once, and lets the job get to its first sleep. */
const pass = command('no-such-command');

function limited({ verb, args }: Start, [cancel, target]: (typeof CANCELS)[number]): Step[] {
  const limits = { ...args, 'job-id': 'j', speed: 65_536 };
  const start = untilEvent('running j', verb, limits);
  const pause = untilEvent('paused j', 'job-pause', { id: 'j' });
  return [
    start, pass, pass, pass,
    untilEvent('null j', cancel, target),
    start, pass, pass, pass, pause, command(cancel, target), pass,
    untilEvent('null j', 'job-cancel', { id: 'j' }),
    untilEvent('running j', verb, { ...limits, 'auto-dismiss': false }),
    pass, pass, pass,
    untilEvent('concluded j', cancel, target),
    command(cancel, target),
    command('job-dismiss', { id: 'j' }),
  ];
}

function ready({ verb, args }: Start, [cancel, target]: (typeof CANCELS)[number]): Step[] {
  const start = untilEvent('BLOCK_JOB_READY', verb, { ...args, 'job-id': 'j' });
  return [
    start,
    untilEvent('null j', cancel, target),
    start,
    untilEvent('standby j', 'job-pause', { id: 'j' }),
    command(cancel, target), pass, pass,
    untilEvent('null j', 'job-cancel', { id: 'j' }),
  ];
}

function pending({ verb, args }: Start, [cancel, target]: (typeof CANCELS)[number]): Step[] {
  return [
    untilEvent('pending j', verb, { ...args, 'job-id': 'j', 'auto-finalize': false }),
    untilEvent('null j', cancel, target),
  ];
}

describe.skipIf(!hasReference)('as a real daemon cancels', () => {
  for (const [name, start] of Object.entries(JOBS)) {
    for (const [verb, args] of CANCELS) {
      it(`a ${name} by ${verb} ${JSON.stringify(args)}`, () =>
        compare((directory) => [
          hello,
          ...openAll(directory),
          command('blockdev-snapshot-sync', {
            'node-name': 'over',
            'snapshot-node-name': 'snap',
            'snapshot-file': join(directory, 'new.qcow2'),
          }),
          ...limited(start, [verb, args]),
          ...(start.readies === true ? ready : pending)(start, [verb, args]),
        ], withoutOffset));
    }
  }

  it('a ready mirror that is paused and told to complete ends after its resume', () =>
    compare((directory) => [
      hello,
      ...openAll(directory),
      untilEvent('BLOCK_JOB_READY', 'blockdev-mirror', {
        device: 'over', target: 'copy', sync: 'full', 'job-id': 'j',
      }),
      untilEvent('standby j', 'job-pause', { id: 'j' }),
      command('job-complete', { id: 'j' }),
      pass,
      untilEvent('null j', 'job-resume', { id: 'j' }),
    ]));
});
