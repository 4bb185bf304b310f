// SPDX-License-Identifier: Apache-2.0
// Who keeps whom from what: every command on every node beside idle chains and every kind of job,
// and the graph with all its edges, as a real daemon answers.
//
// Jobs are paused, so that the drained sections of the commands do not move them on.

import { join } from 'node:path';
import { describe, it } from 'vitest';

import { compare, graphByNames, hasReference, hello } from '../helpers/reference.js';
import { command } from '../helpers/transcript.js';
import type { Line } from '../helpers/transcript.js';

const add = (options: Line): string => command('blockdev-add', options);
const graph = command('x-debug-query-block-graph');
const answers = (line: Line): Line | null => ('event' in line ? null : graphByNames(line));

function chain(directory: string): string[] {
  const file = (name: string, node: string): Line => ({
    driver: 'file',
    'node-name': node,
    filename: join(directory, name),
  });
  const zero = (name: string): string =>
    add({ driver: 'null-co', 'node-name': name, size: 4194304 });
  return [
    hello,
    add({ driver: 'qcow2', 'node-name': 'base', file: file('base.qcow2', 'base-file') }),
    add({
      driver: 'qcow2',
      'node-name': 'top',
      file: file('top.qcow2', 'top-file'),
      backing: 'base',
    }),
    ...['t', 't2', 't3', 'source'].map(zero),
  ];
}

const STREAM = [
  command('block-stream', { 'job-id': 's', device: 'top', 'filter-node-name': 'sf', speed: 1 }),
  command('job-pause', { id: 's' }),
];
const BACKUP = [
  command('blockdev-backup', {
    'job-id': 'b',
    device: 'top',
    target: 't',
    'filter-node-name': 'bf',
    sync: 'full',
    speed: 1,
  }),
  command('job-pause', { id: 'b' }),
];

const COMMIT = [
  command('block-commit', { 'job-id': 'c', device: 'top', 'filter-node-name': 'cf', speed: 1 }),
  command('job-pause', { id: 'c' }),
];
const MIRROR = [
  command('blockdev-mirror', {
    'job-id': 'm',
    device: 'top',
    target: 't',
    'filter-node-name': 'mf',
    sync: 'full',
    speed: 1,
  }),
  command('job-pause', { id: 'm' }),
];

const backup = (device: string, target: string): string =>
  command('blockdev-backup', { 'job-id': 'z', device, target, sync: 'full', speed: 1 });

const mirror = (device: string, target: string): string =>
  command('blockdev-mirror', { 'job-id': 'z', device, target, sync: 'full', speed: 1 });

/** Every command that a job on the node, or an overlay of it, refuses. */
function refused(node: string): string[] {
  return [
    command('block_resize', { 'node-name': node, size: 8388608 }),
    command('block_resize', { 'node-name': node, device: node, size: 8388608 }),
    command('blockdev-del', { 'node-name': node }),
    command('blockdev-snapshot', { node, overlay: 't3' }),
    command('blockdev-snapshot', { node: 't3', overlay: node }),
    command('blockdev-snapshot-sync', {
      'node-name': node,
      'snapshot-file': '/nowhere/new.img',
      'snapshot-node-name': 'new',
    }),
    command('change-backing-file', {
      device: node,
      'image-node-name': node,
      'backing-file': 'x',
    }),
  ];
}

const asJobNodes = (node: string): string[] => [
  ...refused(node),
  command('block-stream', { 'job-id': 'z', device: node, speed: 1 }),
  backup(node, 't2'),
  backup('source', node),
];

describe.skipIf(!hasReference)('as a real daemon answers', () => {
  it('an overlay keeps its backing file from what would change it', () =>
    compare((directory) => [
      ...chain(directory),
      ...refused('base'),
      graph,
    ], answers));

  it('a stream keeps all its nodes to itself', () =>
    compare((directory) => [
      ...chain(directory),
      ...STREAM,
      graph,
      ...['sf', 'top', 'base'].flatMap(asJobNodes),
      backup('source', 'top-file'),
      graph,
    ], answers));

  it('a backup keeps filter and target to itself, and its source unchanged', () =>
    compare((directory) => [
      ...chain(directory),
      ...BACKUP,
      graph,
      ...['bf', 't'].flatMap(asJobNodes),
      command('block_resize', { 'node-name': 'top', size: 8388608 }),
      command('blockdev-del', { 'node-name': 'top' }),
      backup('source', 'top'),
      graph,
    ], answers));

  it('a commit keeps all its nodes to itself', () =>
    compare((directory) => [
      ...chain(directory),
      ...COMMIT,
      graph,
      ...['cf', 'top', 'base'].flatMap(asJobNodes),
      mirror('source', 'base'),
      graph,
    ], answers));

  it('a mirror keeps its nodes and its target to itself', () =>
    compare((directory) => [
      ...chain(directory),
      ...MIRROR,
      graph,
      ...['mf', 'top', 't'].flatMap(asJobNodes),
      ...['mf', 'top', 'base', 't'].map((node) => mirror('source', node)),
      graph,
    ], answers));

  it('two jobs on one chain, each with its own filter and edges', () =>
    compare((directory) => [
      ...chain(directory),
      ...BACKUP,
      ...STREAM,
      graph,
      ...['bf', 'sf', 'top', 'base', 't'].flatMap(refused),
    ], answers));

  it('what lies below a stream may go on being used, and filters may come and go', () =>
    compare((directory) => [
      ...chain(directory),
      command('block-stream', {
        'job-id': 's',
        device: 'top',
        'base-node': 'base',
        'backing-file': 'base.qcow2',
        'auto-finalize': false,
      }),
      graph,
      backup('base', 't2'),
      graph,
    ], answers));

  const TAKING = ['write', 'resize', 'write-unchanged', 'consistent-read'];

  for (const one of TAKING) {
    it(`taking and not sharing '${one}' exclude each other, whoever comes first`, () =>
      compare(() => {
        const debug = (name: string, list: string): string =>
          add({ driver: 'blkdebug', 'node-name': name, image: 't', [list]: [one] });
        const both = ['take-child-perms', 'unshare-child-perms'];
        return [
          hello,
          add({ driver: 'null-co', 'node-name': 't', size: 65536 }),
          ...both.flatMap((first, index) => [
            debug('a', first),
            debug('b', both[1 - index] ?? ''),
            debug('c', first),
            debug('b', both[1 - index] ?? ''),
            graph,
            ...['c', 'b', 'a'].map((name) => command('blockdev-del', { 'node-name': name })),
          ]),
          graph,
        ];
      }, answers));
  }
});
