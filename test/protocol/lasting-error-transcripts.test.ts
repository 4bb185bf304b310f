// SPDX-License-Identifier: Apache-2.0
// Errors that last, in every kind of job under every policy, compared with a real daemon: blkdebug
// fails each read of guest data, or the reads or writes of one sector.

import { join } from 'node:path';
import { describe, it } from 'vitest';

import { compare, hasReference, hello, openAll, withoutOffset } from '../helpers/reference.js';
import { command, untilEvent } from '../helpers/transcript.js';
import type { Line, Step } from '../helpers/transcript.js';

/** Metadata can be written and flushed, so that the nodes close well. */
const FAULTS: Readonly<Record<string, Line>> = {
  read: { event: 'read_aio', iotype: 'read', errno: 5 },
  write: { event: 'none', iotype: 'write', errno: 28, sector: 1000 },
  'read of a sector': { event: 'none', iotype: 'read', errno: 5, sector: 1000 },
};

/** What fails at the source, and what at the target. */
const JOBS = [
  ['blockdev-mirror', { target: 'copy', sync: 'full' }, 'over', 'copy'],
  ['block-stream', {}, 'base', 'over'],
  ['block-commit', { 'top-node': 'top', 'base-node': 'base' }, 'top', 'base'],
  ['block-commit', { 'base-node': 'base' }, 'over', 'base'],
] as const;

const NAMES = ['base', 'top', 'over', 'copy'];

function nodes(directory: string, failing: string, fault: Line): Step[] {
  const all = openAll(directory);
  const backing = { base: null, copy: null, top: 'base', over: 'top' }[failing] ?? null;
  all[NAMES.indexOf(failing)] = command('blockdev-add', {
    driver: 'qcow2',
    'node-name': failing,
    backing,
    file: {
      driver: 'blkdebug',
      image: { driver: 'file', filename: join(directory, `${failing}.qcow2`) },
      'inject-error': [fault],
    },
  });
  return [hello, ...all.slice(0, NAMES.length)];
}

function policies(verb: string, policy: string): Line {
  return verb === 'blockdev-mirror'
    ? { 'on-source-error': policy, 'on-target-error': policy }
    : { 'on-error': policy };
}

/** How many requests fail together is chance, and so is how much was copied by then. */
function withoutChance(): (line: Line) => Line | null {
  let last = '';
  return (line) => {
    // The answer comes before or after what the job says at once.
    if (JSON.stringify(line['return']) === '{}') return null;
    const text = JSON.stringify(withoutOffset(line), (key, value: unknown) =>
      key === 'len' || key.endsWith('-progress') ? 0 : value,
    );
    const repeats = line['event'] === 'BLOCK_JOB_ERROR' && text === last;
    last = text;
    return repeats ? null : (JSON.parse(text) as Line);
  };
}

const FAULTS_BY_POLICY = [
  ['report', 'read'],
  ['stop', 'read'],
  ['stop', 'write'],
  ['stop', 'read of a sector'],
  ['enospc', 'write'],
] as const;

const REST = 'paused j or concluded j or BLOCK_JOB_READY';

describe.skipIf(!hasReference)('as a real daemon meets errors that last', () => {
  for (const [verb, args, source, target] of JOBS) {
    const what = verb === 'block-commit' && !('top-node' in args) ? 'an active commit' : verb;
    it(`${what} stops, goes on, stops again and is cancelled`, async () => {
      for (const [policy, fault] of FAULTS_BY_POLICY) {
        const failing = fault === 'write' ? target : source;
        const job = { 'job-id': 'j', device: 'over', 'auto-dismiss': false };
        await compare(
          (directory) => [
            ...nodes(directory, failing, FAULTS[fault] as Line),
            untilEvent(REST, verb, { ...job, ...args, ...policies(verb, policy) }),
            command('query-block-jobs'),
            untilEvent(REST, 'job-resume', { id: 'j' }),
            command('query-jobs'),
            untilEvent('concluded j', 'block-job-cancel', { device: 'j' }),
            command('query-block-jobs'),
            command('job-dismiss', { id: 'j' }),
          ],
          withoutChance(),
        );
      }
    });
  }
});
