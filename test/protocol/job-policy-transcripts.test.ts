// SPDX-License-Identifier: Apache-2.0
// What jobs do when reading or writing fails once, policy by policy, compared with a real daemon:
// events in order, answers, what queries show while the job is stopped, and how it goes on.

import { join } from 'node:path';
import { describe, it } from 'vitest';

import { compare, hasReference, hello, withoutOffset } from '../helpers/reference.js';
import { command, untilEvent } from '../helpers/transcript.js';
import type { Line, Step } from '../helpers/transcript.js';

const EIO = 5;
const ENOSPC = 28;

interface Case {
  readonly job: 'backup' | 'mirror' | 'stream' | 'commit' | 'active';
  readonly side: 'source' | 'target';
  readonly policy: string;
  readonly errno: number;
}

const FAILING = {
  source: { event: 'read_aio', iotype: 'read', once: true },
  target: { event: 'write_aio', iotype: 'write', once: true },
} as const;

/** A job's command, and which images it has as source, as target, and above them. */
function setting({ job, side, policy }: Case): {
  readonly command: string;
  readonly args: Line;
  readonly source: string;
  readonly target: string;
} {
  if (job === 'stream') {
    const args = { device: 'over', 'on-error': policy };
    return { command: 'block-stream', args, source: 'base', target: 'over' };
  }
  if (job === 'commit' || job === 'active') {
    const top = job === 'commit' ? { device: 'top', 'top-node': 'over' } : { device: 'over' };
    const args = { ...top, 'on-error': policy };
    return { command: 'block-commit', args, source: 'over', target: 'base' };
  }
  const args = { device: 'base', target: 'copy', sync: 'full', [`on-${side}-error`]: policy };
  return { command: `blockdev-${job}`, args, source: 'base', target: 'copy' };
}

function steps(directory: string, which: Case): Step[] {
  const { job, side, policy, errno } = which;
  const { command: name, args, source, target } = setting(which);
  const broken = side === 'source' ? source : target;
  const add = (image: string, backing: string | null): string => {
    const file = { driver: 'file', filename: join(directory, `${image}.qcow2`) };
    const faulty = {
      driver: 'blkdebug', 'inject-error': [{ ...FAILING[side], errno }], image: file,
    };
    return command('blockdev-add', {
      driver: 'qcow2', 'node-name': image, backing, file: image === broken ? faulty : file,
    });
  };
  const stops = policy === 'stop' || (errno === ENOSPC && ['enospc', 'auto'].includes(policy));
  const goesOn = stops || policy === 'ignore';
  const readies = (job === 'mirror' || job === 'active') && goesOn;
  const end = readies ? 'BLOCK_JOB_READY' : 'concluded j';
  // A backup is paused at its start, too.
  const stopped = job === 'backup' ? 'BLOCK_JOB_ERROR' : 'paused j';
  return [
    hello,
    add('base', null),
    add('over', 'base'),
    ...(job === 'commit' ? [add('top', 'over')] : []),
    add('copy', null),
    untilEvent(stops ? stopped : end, name, { 'job-id': 'j', 'auto-dismiss': false, ...args }),
    command('query-jobs'),
    command('query-block-jobs'),
    ...(stops ? whileStopped(end) : []),
    ...(readies ? [untilEvent('concluded j', 'job-complete', { id: 'j' })] : []),
    command('query-block-jobs'),
    command('job-dismiss', { id: 'j' }),
  ];
}

function whileStopped(end: string): Step[] {
  return [
    command('job-pause', { id: 'j' }),
    command('block-job-pause', { device: 'j' }),
    command('block-job-cancel', { device: 'j' }),
    command('job-complete', { id: 'j' }),
    command('job-dismiss', { id: 'j' }),
    command('block-job-set-speed', { device: 'j', speed: 1073741824 }),
    command('query-block-jobs'),
    untilEvent(end, 'job-resume', { id: 'j' }),
    command('job-resume', { id: 'j' }),
    command('query-block-jobs'),
  ];
}

/** How much was done when it failed is chance, in mirrors also what was known to be due. */
function plain(line: Line): Line {
  const chance = ['current-progress', 'total-progress', 'len'];
  return withoutOffset(
    JSON.parse(
      JSON.stringify(line, (key, value: unknown) => (chance.includes(key) ? 0 : value)),
    ) as Line,
  );
}

const POLICIES: readonly (readonly [string, number])[] = [
  ['report', EIO],
  ['ignore', EIO],
  ['stop', EIO],
  ['enospc', EIO],
  ['enospc', ENOSPC],
  ['auto', ENOSPC],
];

describe.skipIf(!hasReference)('as a real daemon meets errors', () => {
  for (const job of ['backup', 'mirror', 'stream', 'commit', 'active'] as const) {
    for (const side of ['source', 'target'] as const) {
      it(`${job}: every policy for a ${side} that fails once`, async () => {
        for (const [policy, errno] of POLICIES) {
          await compare((directory) => steps(directory, { job, side, policy, errno }), plain);
        }
      });
    }
  }
});
