// SPDX-License-Identifier: Apache-2.0
// What a concluded job still holds until it is dismissed, compared with a real daemon: a commit
// that ended well and a stream keep their edges, backups and mirrors keep nothing.

import { describe, it } from 'vitest';

import { compare, graphByNames, hasReference, hello, openAll } from '../helpers/reference.js';
import { command, untilEvent } from '../helpers/transcript.js';
import type { Line, Step } from '../helpers/transcript.js';

const KEPT = { 'auto-dismiss': false, 'job-id': 'c', device: 'over' };
const BY_HAND = { ...KEPT, 'auto-finalize': false };
const MIDDLE = { 'top-node': 'top' };
const BACKUP = { target: 'copy', sync: 'full' };

function pendingThenCancelled(verb: string, args: Line): Step[] {
  return [
    untilEvent('BLOCK_JOB_PENDING', verb, { ...BY_HAND, ...args }),
    command('job-cancel', { id: 'c' }),
  ];
}

function readyThen(verb: string, args: Line, end: string): Step[] {
  return [
    untilEvent('BLOCK_JOB_READY', verb, { ...KEPT, ...args }),
    untilEvent('concluded c', end, { id: 'c' }),
  ];
}

const ENDS: Readonly<Record<string, readonly Step[]>> = {
  'a commit that ended well': [untilEvent('concluded c', 'block-commit', { ...KEPT, ...MIDDLE })],
  'a commit that was cancelled': pendingThenCancelled('block-commit', MIDDLE),
  'an active commit that ended well': readyThen('block-commit', {}, 'job-complete'),
  'an active commit that was cancelled': readyThen('block-commit', {}, 'job-cancel'),
  'a stream of all': [untilEvent('concluded c', 'block-stream', KEPT)],
  'a stream down to a base': [untilEvent('concluded c', 'block-stream', {
    ...KEPT, 'base-node': 'base',
  })],
  'a stream that was cancelled': pendingThenCancelled('block-stream', { 'base-node': 'base' }),
  'a backup that ended well': [
    untilEvent('concluded c', 'blockdev-backup', { ...KEPT, ...BACKUP }),
  ],
  'a backup that was cancelled': pendingThenCancelled('blockdev-backup', BACKUP),
  'a mirror that ended well': readyThen('blockdev-mirror', BACKUP, 'job-complete'),
  'a mirror that was cancelled': readyThen('blockdev-mirror', BACKUP, 'job-cancel'),
};

const graph = command('x-debug-query-block-graph');

function dels(...names: readonly string[]): string[] {
  return names.map((name) => command('blockdev-del', { 'node-name': name }));
}

/** A node above `file` that reads it, or wants to write to it. */
function onTop(file: string, readOnly: boolean): Step[] {
  return [
    command('blockdev-add', {
      driver: 'raw', file, 'node-name': `on-${file}`, 'read-only': readOnly,
    }),
    command('blockdev-add', {
      driver: 'blkdebug', image: `on-${file}`, 'node-name': 'd', 'take-child-perms':
        readOnly ? ['consistent-read'] : ['write', 'resize'],
    }),
    ...dels('d', `on-${file}`),
  ];
}

const SHELL = /main node, block-driver #block/;
const STALE = /^(block-driver top, backing, block-driver base), (?:consistent-read)?,/;

/**
 * Without the stream's filter, of which the daemon keeps a shell that it cannot be asked about,
 * and the permission that a layer streamed out has there until something else changes.
 */
function withoutRemains(line: Line): Line {
  const seen = graphByNames(line);
  const { edges } = (seen['return'] ?? {}) as { readonly edges?: readonly string[] };
  if (edges === undefined) return seen;
  const real = edges.filter((edge) => !SHELL.test(edge));
  return { return: real.map((edge) => edge.replace(STALE, '$1,')) };
}

describe.skipIf(!hasReference)('as with a real daemon, until it is dismissed', () => {
  for (const [name, steps] of Object.entries(ENDS)) {
    it(`${name} holds what it holds there`, () =>
      compare((directory) => [
        hello,
        ...openAll(directory),
        ...steps,
        graph,
        command('query-jobs'),
        command('block-commit', { device: 'over', 'job-id': 'd', 'top-node': 'no' }),
        command('block-stream', { device: 'over', 'job-id': 'd', speed: -1 }),
        ...onTop('top', true),
        ...onTop('over', false),
        ...dels('over', 'top', 'base', 'copy'),
        command('job-dismiss', { id: 'c' }),
        command('job-dismiss', { id: 'c' }),
        graph,
        ...dels('over', 'top', 'base'),
        ...openAll(directory),
      ], withoutRemains));
  }
});
