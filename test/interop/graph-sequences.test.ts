// SPDX-License-Identifier: Apache-2.0
// Sequences of commands that once did to ours what they do not do to a real daemon, made short:
// same answers, same events, same graph after each, same images in the end.

import { afterAll, describe, expect, it } from 'vitest';

import { playBoth, replay } from '../helpers/graph-contest.js';
import type { GraphCommand } from '../helpers/graph-contest.js';
import { forgetImages } from '../helpers/graph-images.js';
import { hasReference } from '../helpers/reference.js';
import type { Line } from '../helpers/transcript.js';

type Options = Line & { readonly driver: string };

function add(name: string, options: Options): GraphCommand {
  return { execute: 'blockdev-add', arguments: { 'node-name': name, ...options } };
}

function file(name: string): Options {
  return { driver: 'file', filename: `DIR/${name}` };
}

function qcow2(name: string, more: Line = {}): Options {
  return { driver: 'qcow2', file: file(`${name}.qcow2`), ...more };
}

function reopen(...options: readonly Line[]): GraphCommand {
  return { execute: 'blockdev-reopen', arguments: { options } };
}

function job(execute: string, args: Line): GraphCommand {
  return { execute, arguments: { 'job-id': 'j', ...args }, job: 'j' };
}

const SEQUENCES: Readonly<Record<string, readonly GraphCommand[]>> = {
  'a bitmap is as fine as the clusters below raw and filters': [
    add('raw', { driver: 'raw', file: qcow2('spare', { backing: null }) }),
    add('debug', { driver: 'blkdebug', image: 'raw' }),
    { execute: 'block-dirty-bitmap-add', arguments: { node: 'debug', name: 'b' } },
  ],
  'a stream of nothing links the header all the same': [
    add('odd', file('odd.raw')),
    add('top', qcow2('small')),
    reopen({ 'node-name': 'top', ...qcow2('small', { backing: 'odd' }) }),
    job('block-stream', { device: 'top', 'base-node': 'odd' }),
  ],
  'a stream finds its base by a file below a filter': [
    add('below', { driver: 'blkverify', test: qcow2('spare'), raw: file('top.qcow2') }),
    add('top', qcow2('v2', { backing: null, 'read-only': true })),
    { execute: 'blockdev-snapshot', arguments: { node: 'below', overlay: 'top' } },
    job('block-stream', { device: 'top', base: 'DIR/top.qcow2' }),
  ],
  'what is read through copy-on-read is whole without a backing file too': [
    add('leaf', qcow2('leaf', { backing: null })),
    add('cor', { driver: 'copy-on-read', file: 'leaf' }),
    add('probing', qcow2('spare', { file: 'cor', backing: null })),
  ],
  'a window becomes smaller with the file below it': [
    add('file', file('plain.raw')),
    add('below', { driver: 'raw', file: 'file' }),
    add('window', { driver: 'raw', file: 'below', size: 1048576 }),
    add('nothing', { driver: 'null-co', size: 0, 'read-zeroes': true }),
    reopen({ driver: 'raw', file: 'nothing', 'node-name': 'below', 'read-only': true }),
  ],
  'what is above a node has its name again after a transaction was given up': [
    add('below', file('odd.raw')),
    add('cor', { driver: 'copy-on-read', file: 'below' }),
    {
      execute: 'transaction',
      arguments: {
        actions: [
          {
            type: 'blockdev-snapshot-sync',
            data: {
              'node-name': 'below', 'snapshot-file': 'DIR/lazy.qcow2',
              'snapshot-node-name': 'new', mode: 'existing',
            },
          },
          { type: 'abort', data: {} },
        ],
      },
    },
  ],
  'zeroes written to part of a cluster hide a backing file that comes later': [
    add('target', qcow2('leaf', { backing: null })),
    add('source', { driver: 'raw', file: file('odd.raw'), 'detect-zeroes': 'on' }),
    { execute: 'block_resize', arguments: { 'node-name': 'source', size: 2097152 } },
    job('blockdev-mirror', { device: 'source', target: 'target', sync: 'full' }),
  ],
  'a filter over the top is no base of a stream': [
    add('debug', { driver: 'blkdebug', image: qcow2('v2') }),
    add('more', { driver: 'blkdebug', image: 'debug' }),
    job('block-stream', { device: 'more', 'base-node': 'debug' }),
  ],
  'a header that another backing file was put in place of names no base': [
    add('below', file('odd.raw')),
    add('top', qcow2('top', { backing: null })),
    { execute: 'blockdev-snapshot', arguments: { node: 'below', overlay: 'top' } },
    job('block-stream', { device: 'top', base: 'DIR/mid.qcow2' }),
  ],
  'a backing file by a name of blkdebug opens what that name says': [
    add('debug', { driver: 'blkdebug', image: file('odd.raw') }),
    {
      execute: 'blockdev-snapshot-sync',
      arguments: {
        'node-name': 'debug', 'snapshot-file': 'DIR/new.qcow2', 'snapshot-node-name': 'new',
      },
    },
    add('again', { driver: 'qcow2', file: file('new.qcow2'), 'read-only': true }),
  ],
  'a commit goes into the image below filters': [
    add('top', qcow2('base', {
      backing: {
        driver: 'blkdebug', 'read-only': true,
        image: { driver: 'blklogwrites', file: qcow2('lazy'), log: file('plain.raw') },
      },
    })),
    job('block-commit', { device: 'top' }),
  ],
  'what is below an overlay cannot be asked fails as a read': [
    add('image', { driver: 'file', filename: 'DIR/plain.raw' }),
    add('access', { driver: 'snapshot-access', file: 'image' }),
    add('top', qcow2('base', { backing: null, 'read-only': true })),
    { execute: 'blockdev-snapshot', arguments: { node: 'access', overlay: 'top' } },
    job('block-stream', { device: 'top' }),
  ],
  'a node that is made read-only keeps the overlay that came below it': [
    add('top', { driver: 'qcow2', file: { ...file('lazy.qcow2'), 'node-name': 'below' } }),
    add('overlay', qcow2('v2', { backing: null })),
    { execute: 'blockdev-snapshot', arguments: { node: 'below', overlay: 'overlay' } },
    {
      execute: 'blockdev-snapshot-sync',
      arguments: {
        'node-name': 'top', 'snapshot-file': 'DIR/new.qcow2', 'snapshot-node-name': 'new',
      },
    },
  ],
  'a stream reads what is below a quorum, which is no filter': [
    add('below', {
      driver: 'quorum', children: [qcow2('mid', { backing: null })], 'vote-threshold': 1,
    }),
    add('top', qcow2('v2', { backing: 'below' })),
    job('block-stream', { device: 'top' }),
  ],
  'of a node that is two children of one, what is said of the older counts': [
    add('top', qcow2('orphan', {
      file: { ...file('orphan.qcow2'), 'node-name': 'below' }, backing: null,
    })),
    { execute: 'blockdev-snapshot', arguments: { node: 'below', overlay: 'top' } },
    reopen({
      driver: 'qcow2', 'node-name': 'top',
      file: { ...file('orphan.qcow2'), 'node-name': 'below' }, backing: file('odd.raw'),
    }),
  ],
  'a backing file may unmap what it finds to be zeroes': [
    add('top', qcow2('lazy', {
      backing: { driver: 'raw', file: file('plain.raw'), 'detect-zeroes': 'unmap' },
    })),
  ],
  'what a filter does not share nobody below it shares': [
    add('debug', {
      driver: 'blkdebug', 'unshare-child-perms': ['write-unchanged'],
      image: { driver: 'preallocate', file: qcow2('top') },
    }),
  ],
  'files that are no images, and links that nothing holds, are refused in the same words': [
    add('plain', file('plain.raw')),
    add('image', { driver: 'qcow2', file: 'plain', backing: null }),
    add('old', qcow2('v2', { backing: null, 'lazy-refcounts': true })),
    add('debug', { driver: 'blkdebug', image: 'plain' }),
    {
      execute: 'change-backing-file',
      arguments: { device: 'debug', 'image-node-name': 'debug', 'backing-file': 'DIR/odd.raw' },
    },
    job('block-commit', { device: 'debug' }),
    job('blockdev-mirror', { device: 'debug', target: 'plain', sync: 'full' }),
    {
      execute: 'blockdev-snapshot-sync',
      arguments: {
        'node-name': 'debug', 'snapshot-file': 'DIR/leaf.qcow2', 'snapshot-node-name': 'new',
        format: 'nope', mode: 'existing',
      },
    },
  ],
  'options that contradict each other, and permissions, are refused first': [
    add('votes', {
      driver: 'quorum', children: [qcow2('mid', { file: 'nope' })], 'vote-threshold': 2,
    }),
    add('image', { driver: 'qcow2', file: { ...file('spare.qcow2'), 'node-name': 'below' } }),
    add('window', { driver: 'raw', file: 'below', size: 1000 }),
    add('two', { driver: 'quorum', children: ['below', qcow2('mid')], 'vote-threshold': 1 }),
    add('fixed', { ...file('odd.raw'), 'read-only': true }),
    add('cor', { driver: 'copy-on-read', file: 'fixed', bottom: 'fixed' }),
  ],
  'a reopen tells the first of several options in the order of their names': [
    add('plain', { ...file('plain.raw'), locking: 'auto' }),
    reopen({ driver: 'file', filename: 'DIR/odd.raw', locking: 'on', 'node-name': 'plain' }),
    add('top', qcow2('v2')),
    reopen({
      'node-name': 'top', driver: 'qcow2', file: file('v2.qcow2'),
      backing: { driver: 'blkverify', test: file('odd.raw'), raw: file('plain.raw') },
    }),
  ],
  'filters of jobs say what could not be done': [
    add('fixed', qcow2('mid', { backing: null, 'read-only': true })),
    add('top', qcow2('top', { backing: null })),
    job('blockdev-backup', { device: 'top', target: 'fixed', sync: 'full' }),
    add('plain', file('plain.raw')),
    add('user', { driver: 'raw', file: 'plain' }),
    job('blockdev-backup', { device: 'plain', target: 'user', sync: 'full' }),
  ],
};

describe.skipIf(!hasReference)('commands on a graph that once differed', () => {
  afterAll(forgetImages);

  it.each(Object.entries(SEQUENCES))('%s', async (_, commands) => {
    const outcome = await playBoth(replay(commands));
    expect(outcome.difference).toBe('');
    expect(outcome.kind).toBe('same');
    expect(outcome.wordings).toEqual([]);
  });
});
