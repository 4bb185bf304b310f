// SPDX-License-Identifier: Apache-2.0
// A cancel of every type of job in every state, in each of its three forms, compared with a real
// daemon: which events come, and which of them before the reply: all but those of mirrors, if the
// job is at rest. Whether one that is limited rests already is chance where it copies real files.

import { join } from 'node:path';
import { describe, it } from 'vitest';

import {
  compare,
  hasReference,
  hello,
  openAll,
  withoutOffset,
  withoutReplies,
} from '../helpers/reference.js';
import { command, untilEvent } from '../helpers/transcript.js';
import type { Line, Step } from '../helpers/transcript.js';

interface Start {
  readonly verb: string;
  readonly args: Line;
  /** It gets READY and waits there. */
  readonly readies?: boolean;
  /** It copies nothing that could be in flight. */
  readonly rests?: boolean;
}

const JOBS: Readonly<Record<string, Start>> = {
  mirror: {
    verb: 'blockdev-mirror',
    args: { device: 'snap', target: 'copy', sync: 'full' },
    readies: true,
  },
  backup: { verb: 'blockdev-backup', args: { device: 'snap', target: 'copy', sync: 'full' } },
  'backup at rest': {
    verb: 'blockdev-backup',
    args: { device: 'n', target: 't', sync: 'full' },
    rests: true,
  },
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

function limited(job: Start, [cancel, target]: (typeof CANCELS)[number]): Step[] {
  const limits = { ...job.args, 'job-id': 'j', speed: 65_536 };
  const startWith = (args: Line): Step =>
    job.rests === true ? command(job.verb, args) : untilEvent('running j', job.verb, args);
  const start = startWith(limits);
  const pause = untilEvent('paused j', 'job-pause', { id: 'j' });
  return [
    start, pass, pass, pass,
    untilEvent('null j', cancel, target),
    start, pass, pass, pass, pause, command(cancel, target), pass,
    untilEvent('null j', 'job-cancel', { id: 'j' }),
    startWith({ ...limits, 'auto-dismiss': false }),
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
          ...['n', 't'].map((node) =>
            command('blockdev-add', { driver: 'null-co', 'node-name': node, size: 4194304 })),
          command('blockdev-snapshot-sync', {
            'node-name': 'over',
            'snapshot-node-name': 'snap',
            'snapshot-file': join(directory, 'new.qcow2'),
          }),
          ...limited(start, [verb, args]),
          ...(start.readies === true ? ready(start, [verb, args]) : []),
          ...(start.readies === true || start.rests === true ? [] : pending(start, [verb, args])),
        ], (line) => {
          const kept = start.readies === true || start.rests === true ? line : withoutReplies(line);
          return kept === null ? null : withoutOffset(kept);
        }));
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
