// SPDX-License-Identifier: Apache-2.0
// Targets that drive-mirror and drive-backup find by names of every kind, and their refusals,
// compared with a real daemon.

import { join } from 'node:path';
import { describe, it } from 'vitest';

import { compare, hasReference, hello, openAll, withoutOffset } from '../helpers/reference.js';
import { command, untilEvent } from '../helpers/transcript.js';
import type { Line, Step } from '../helpers/transcript.js';

const json = (options: unknown): string => `json:${JSON.stringify(options)}`;

function namesOf(directory: string): string[] {
  // It has a backing file, and nothing else uses it.
  const filename = join(directory, 'top.qcow2');
  const file = { driver: 'file', filename };
  return [
    filename,
    json({ file }),
    json({ driver: 'qcow2', file: { filename } }),
    `json:{'file.driver': 'file', 'file.filename': '${filename}'}`,
    `blkdebug::${filename}`,
    `file:${filename}`,
  ];
}

/** The size of a file that a job writes to is chance. */
function withoutSizes(line: Line): Line {
  const text = JSON.stringify(withoutOffset(line), (key, value: unknown) =>
    ['len', 'virtual-size', 'actual-size', 'current-progress', 'total-progress'].includes(key)
      ? 0
      : value,
  );
  return JSON.parse(text) as Line;
}

const NAMES = ['null-co://', 'null-co:x', 'nope:x', 'host_device:/nope/x', '', 'blkdebug::/nope/x'];
const TEXTS = ['json:', 'json:[]', 'json:{"a"', json({}), json({ driver: 'nope' })];

describe.skipIf(!hasReference)('as a real daemon finds targets', () => {
  for (const format of [null, 'qcow2']) {
    it(`a target that is there opens by any name, its format ${format ?? 'found'}`, () =>
      compare((directory) => {
        const named = format === null ? {} : { format };
        const play = (target: string, index: number): Step[] => {
          const id = `j${index}`;
          const there = { 'job-id': id, device: 'base', target, mode: 'existing', ...named };
          const cancel = { device: id, force: true };
          return [
            untilEvent('BLOCK_JOB_READY', 'drive-mirror', { ...there, sync: 'full' }),
            command('query-named-block-nodes', { flat: true }),
            untilEvent(`null ${id}`, 'block-job-cancel', cancel),
            command('drive-backup', { ...there, sync: 'none' }),
            command('query-named-block-nodes', { flat: true }),
            untilEvent(`null ${id}`, 'block-job-cancel', cancel),
          ];
        };
        return [hello, ...openAll(directory).slice(0, 1), ...namesOf(directory).flatMap(play)];
      }, withoutSizes));
  }

  for (const verb of ['drive-mirror', 'drive-backup']) {
    it(`${verb} refuses names and formats in the same order, in the same words`, () =>
      compare((directory) => {
        const steps: Step[] = [hello, ...openAll(directory)];
        const args = { 'job-id': 'j', device: 'over', sync: 'none' };
        for (const mode of ['existing', 'absolute-paths']) {
          for (const format of ['qcow2', 'null-co', 'file', 'nope', '']) {
            // A target that opens begins a job, which is told of above.
            const opens = mode === 'existing' && format === 'null-co';
            const names = opens ? NAMES.slice(1) : [...NAMES, ...TEXTS];
            for (const target of names) {
              steps.push(command(verb, { ...args, target, mode, format }));
            }
          }
        }
        return steps;
      }));
  }

  it('a device is no place for an image that it does not keep', () =>
    compare(() => [
      hello,
      command('blockdev-add', { driver: 'null-co', 'node-name': 'n', size: 4 << 20 }),
      untilEvent('concluded c', 'blockdev-create', {
        'job-id': 'c',
        options: { driver: 'qcow2', file: 'n', size: 1 << 20 },
      }),
      command('query-jobs'),
    ]));
});
