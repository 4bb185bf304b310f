// SPDX-License-Identifier: Apache-2.0
// Errors of commits and mirrors under every policy, compared with a real daemon: blkdebug lets the
// first read or write of guest data fail.

import { join } from 'node:path';
import { describe, it } from 'vitest';

import { compare, hasReference, hello, openAll, withoutOffset } from '../helpers/reference.js';
import { command, untilEvent } from '../helpers/transcript.js';
import type { Line, Step } from '../helpers/transcript.js';

/** A qcow2 node whose file fails once. */
function failing(
  directory: string,
  name: string,
  fault: { readonly event: string; readonly errno: number },
): string {
  return command('blockdev-add', {
    driver: 'qcow2',
    'node-name': name,
    file: {
      driver: 'blkdebug',
      image: { driver: 'file', filename: join(directory, `${name}.qcow2`) },
      'inject-error': [{ ...fault, once: true }],
    },
    ...(name === 'over' ? { backing: 'top' } : {}),
  });
}

/** How much was copied by then is chance. */
function withoutProgress(line: Line): Line {
  const text = JSON.stringify(withoutOffset(line), (key, value: unknown) =>
    key === 'len' || key.endsWith('-progress') ? 0 : value,
  );
  return JSON.parse(text) as Line;
}

const SIDES = [
  ['source', 'over', { event: 'read_aio', errno: 5 }],
  ['target', 'copy', { event: 'write_aio', errno: 28 }],
] as const;

describe.skipIf(!hasReference)('as a real daemon meets errors', () => {
  for (const [side, name, fault] of SIDES) {
    const nodes = (directory: string): Step[] => {
      const all = openAll(directory);
      all[name === 'over' ? 2 : 3] = failing(directory, name, fault);
      return [hello, ...all];
    };
    const mirror = (until: string, policy: string): Step =>
      untilEvent(until, 'blockdev-mirror', {
        'job-id': 'm',
        device: 'over',
        target: 'copy',
        sync: 'top',
        'auto-dismiss': false,
        [`on-${side}-error`]: policy,
      });

    for (const policy of ['report', 'ignore', 'stop', 'enospc']) {
      const stops = policy === 'stop' || (policy === 'enospc' && side === 'target');
      const fails = policy === 'report' || (policy === 'enospc' && side === 'source');
      it(`a mirror's ${side} error under '${policy}' tells the same story`, () =>
        compare(
          (directory) => [
            ...nodes(directory),
            mirror(stops ? 'paused m' : fails ? 'concluded m' : 'BLOCK_JOB_READY', policy),
            command('query-block-jobs'),
            ...(stops ? [untilEvent('BLOCK_JOB_READY', 'job-resume', { id: 'm' })] : []),
            ...(fails ? [] : [untilEvent('concluded m', 'job-complete', { id: 'm' })]),
            command('query-jobs'),
            command('job-dismiss', { id: 'm' }),
          ],
          withoutProgress,
        ));
    }
  }

  for (const policy of ['report', 'stop']) {
    it(`a commit's error under '${policy}' tells the same story`, () =>
      compare(
        (directory) => [
          hello,
          failing(directory, 'top', { event: 'write_aio', errno: 28 }),
          failing(directory, 'over', { event: 'read_aio', errno: 5 }),
          untilEvent(policy === 'stop' ? 'paused c' : 'concluded c', 'block-commit', {
            'job-id': 'c',
            device: 'over',
            'base-node': 'top',
            'auto-dismiss': false,
            'on-error': policy,
          }),
          command('query-block-jobs'),
        ],
        withoutProgress,
      ));
  }
});
