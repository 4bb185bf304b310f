// SPDX-License-Identifier: Apache-2.0
// Every command that changes the graph, with the Nth host call of each kind failing, for half of
// those that the command makes when nothing fails (in campaigns for all). Refused, it leaves nodes,
// edges, options, contents, locks and open files as they were, and works once the fault is gone.
// Commands that make no host call of their own have no place here.

import { describe, expect, it } from 'vitest';

import { BlockError } from '../../src/base/index.js';
import type { HostOperation } from '../../src/host/index.js';
import { FaultStage, MIB } from '../helpers/fault-stage.js';
import type { Arguments, Command } from '../helpers/fault-stage.js';
import { someOf } from '../helpers/seeds.js';

const OPERATIONS: readonly HostOperation[] = [
  'open', 'create', 'read', 'write', 'write-zeroes', 'discard', 'truncate', 'sync', 'lock',
];

interface Case {
  readonly title: string;
  readonly setup?: readonly Command[];
  /** Node that a guest writes to before, and goes on using. */
  readonly guest?: string;
  readonly command: Command;
  /** An error comes with the change made: what was let go of is gone. */
  readonly goesThrough?: boolean;
  /** Goes there and back: the same node, opened anew; no way back when all calls fail. */
  readonly reopens?: boolean;
}

const file = (name: string, more: Arguments = {}): Arguments => ({
  driver: 'file',
  filename: `/${name}`,
  ...more,
});
const qcow2 = (name: string, more: Arguments = {}): Arguments => ({
  driver: 'qcow2',
  'node-name': name,
  file: file(name),
  ...more,
});
const add = (options: Arguments): Command => ['blockdev-add', options];
const reopen = (...options: readonly Arguments[]): Command => ['blockdev-reopen', { options }];
const over = (driver: string, more: Arguments): Arguments => ({
  driver,
  'node-name': 'new',
  ...more,
});

const base = qcow2('base');
const top = qcow2('top', { backing: 'base' });
const disk = file('disk', { 'node-name': 'disk' });
const raw = { driver: 'raw', 'node-name': 'raw', file: 'disk' };
const readOnly = { 'read-only': true };
const chain = [add({ ...base, ...readOnly }), add(top)];
const group: Command = ['object-add', { 'qom-type': 'throttle-group', id: 'g' }];
const throttle = (more: Arguments): Arguments =>
  over('throttle', { 'throttle-group': 'g', ...more });
const snapshot = (more: Arguments): Command => [
  'blockdev-snapshot-sync',
  { 'node-name': 'top', 'snapshot-file': '/snap', 'snapshot-node-name': 'snap', ...more },
];

const bitmap = { node: 'top', name: 'b' };
const action = (type: string, data: Arguments): Arguments => ({ type, data });
const transaction = (...actions: readonly Arguments[]): Command => ['transaction', { actions }];
const backup = { 'job-id': 'j', sync: 'full', speed: 1 };
const withBitmap = [...chain, ['block-dirty-bitmap-add', bitmap]] as const;

const CASES: readonly Case[] = [
  { title: 'add a file', command: add(disk) },
  { title: 'add an image with its backing file', command: add(qcow2('top')) },
  { title: 'add an image with inline children', command: add(qcow2('top', { backing: base })) },
  {
    title: 'add an image over nodes',
    setup: [add({ ...base, ...readOnly }), add(file('top', { 'node-name': 'f' }))],
    command: add({ driver: 'qcow2', 'node-name': 'top', file: 'f', backing: 'base' }),
  },
  {
    title: 'add throttle',
    setup: [group],
    command: add(throttle({ file: qcow2('top') })),
  },
  { title: 'add blkdebug', command: add(over('blkdebug', { image: qcow2('top') })) },
  { title: 'add copy-on-read', command: add(over('copy-on-read', { file: qcow2('top') })) },
  { title: 'add preallocate', command: add(over('preallocate', { file: file('disk') })) },
  {
    title: 'add blkverify',
    command: add(over('blkverify', { test: qcow2('other'), raw: file('disk') })),
  },
  {
    title: 'add blklogwrites',
    command: add(over('blklogwrites', { file: qcow2('top'), log: file('log') })),
  },
  {
    title: 'add quorum',
    command: add(over('quorum', { children: [qcow2('other'), file('disk')], 'vote-threshold': 1 })),
  },
  {
    title: 'add copy-before-write',
    setup: chain,
    guest: 'top',
    command: add(over('copy-before-write', { file: 'top', target: qcow2('other') })),
  },
  {
    title: 'delete a chain',
    setup: [add(qcow2('top', { backing: base }))],
    command: ['blockdev-del', { 'node-name': 'top' }],
    goesThrough: true,
  },
  {
    title: 'reopen to read-only',
    setup: chain,
    command: reopen({ ...top, ...readOnly }),
  },
  {
    title: 'reopen a list to read-write',
    setup: [add({ ...base, ...readOnly }), add({ ...top, ...readOnly }), add(disk)],
    command: reopen(top, { ...disk, cache: { 'no-flush': true } }, base),
  },
  {
    title: 'reopen with another backing file',
    setup: [...chain, add(disk), add(raw)],
    guest: 'top',
    command: reopen({ ...top, backing: 'raw' }, { ...raw, offset: 4096 }),
  },
  {
    title: 'reopen over another file',
    setup: [add(qcow2('top', { backing: base })), add(file('other', { 'node-name': 'o' }))],
    command: reopen({ ...qcow2('top'), file: 'o', backing: null }),
  },
  {
    title: 'reopen throttle in another group',
    setup: [...chain, group, ['object-add', { 'qom-type': 'throttle-group', id: 'h' }],
      add(throttle({ file: 'top' }))],
    guest: 'new',
    command: reopen(throttle({ file: 'top', 'throttle-group': 'h' }), {
      ...top,
      file: file('top', { cache: { 'no-flush': true } }),
    }),
  },
  {
    title: 'snapshot',
    setup: [...chain, add(qcow2('other', { backing: null }))],
    guest: 'top',
    command: ['blockdev-snapshot', { node: 'top', overlay: 'other' }],
  },
  { title: 'snapshot into a new file', setup: chain, guest: 'top', command: snapshot({}) },
  {
    title: 'snapshot into a file that is there',
    setup: chain,
    guest: 'top',
    command: snapshot({ 'snapshot-file': '/other', mode: 'existing' }),
  },
  {
    title: 'change the backing file',
    setup: chain,
    guest: 'top',
    command: [
      'change-backing-file',
      { device: 'top', 'image-node-name': 'top', 'backing-file': '/other' },
    ],
  },
  {
    title: 'change the backing file of a read-only image',
    setup: [add({ ...base, ...readOnly }), add({ ...top, ...readOnly })],
    command: [
      'change-backing-file',
      { device: 'top', 'image-node-name': 'top', 'backing-file': '/other' },
    ],
    reopens: true,
  },
  {
    title: 'make an image larger',
    setup: chain,
    guest: 'top',
    command: ['block_resize', { 'node-name': 'top', size: 9 * MIB }],
  },
  {
    title: 'make an image smaller',
    setup: chain,
    guest: 'top',
    command: ['block_resize', { 'node-name': 'top', size: 65_536 }],
  },
  {
    title: 'resize a file',
    setup: [add(disk), add(raw)],
    command: ['block_resize', { 'node-name': 'raw', size: 2 * MIB }],
  },
  {
    title: 'start a stream',
    setup: chain,
    guest: 'top',
    command: ['block-stream', { 'job-id': 'j', device: 'top', speed: 1 }],
  },
  {
    title: 'start a commit',
    setup: chain,
    guest: 'top',
    command: ['block-commit', { 'job-id': 'j', device: 'top', speed: 1 }],
  },
  {
    title: 'start a mirror',
    setup: [...chain, add(qcow2('other'))],
    guest: 'top',
    command: [
      'blockdev-mirror',
      { 'job-id': 'j', device: 'top', target: 'other', sync: 'top', speed: 1 },
    ],
  },
  {
    title: 'bitmaps, then a snapshot into a new file',
    setup: withBitmap,
    guest: 'top',
    command: transaction(
      action('block-dirty-bitmap-disable', bitmap),
      action('block-dirty-bitmap-add', { node: 'top', name: 'new', granularity: 512 }),
      action('block-dirty-bitmap-merge', { node: 'top', target: 'new', bitmaps: ['b'] }),
      action('block-dirty-bitmap-clear', bitmap),
      action('blockdev-snapshot-sync', snapshot({})[1]),
      action('block-dirty-bitmap-remove', bitmap),
    ),
  },
  {
    title: 'a snapshot, another on top of it and a backup of both',
    setup: [...withBitmap, add(qcow2('other', { backing: null })), add(disk), add(raw)],
    guest: 'top',
    command: transaction(
      action('blockdev-snapshot', { node: 'top', overlay: 'other' }),
      action('blockdev-snapshot-sync', { ...snapshot({})[1], 'node-name': 'other' }),
      action('block-dirty-bitmap-clear', bitmap),
      action('blockdev-backup', { ...backup, device: 'snap', target: 'raw' }),
    ),
  },
  {
    title: 'two backups that end together',
    setup: [
      ...withBitmap,
      add(qcow2('other')),
      add(disk),
      add(raw),
      add(file('log', { 'node-name': 'l' })),
    ],
    guest: 'top',
    command: ['transaction', {
      actions: [
        action('blockdev-backup', { ...backup, device: 'top', target: 'other' }),
        action('blockdev-backup', { ...backup, 'job-id': 'k', device: 'raw', target: 'l' }),
      ],
      properties: { 'completion-mode': 'grouped' },
    }],
  },
  {
    title: 'add a child to a quorum',
    setup: [
      add(over('quorum', { children: [qcow2('other'), file('disk')], 'vote-threshold': 1 })),
      add(file('log', { 'node-name': 'l' })),
    ],
    guest: 'new',
    command: ['x-blockdev-change', { parent: 'new', node: 'l' }],
  },
];

interface Attempt {
  readonly operation: HostOperation;
  readonly nth: number;
  /** All later calls of the kind fail too, those of undoing included. */
  readonly lasting: boolean;
}

/** One for every call that the command makes when nothing fails. */
async function attemptsOf(each: Case): Promise<readonly Attempt[]> {
  const stage = new FaultStage();
  const { faults } = stage.host;
  const counts = (): readonly number[] => OPERATIONS.map((operation) => faults.count(operation));
  try {
    await stage.start(each.setup ?? [], each.guest ?? null);
    const before = counts();
    await stage.run(each.command);
    const calls = counts().map((count, index) => count - (before[index] ?? 0));
    return OPERATIONS.flatMap((operation, index) =>
      (each.reopens === true ? [false] : [false, true]).flatMap((lasting) =>
        Array.from({ length: calls[index] ?? 0 }, (_, at) => ({
          operation,
          nth: at + 1,
          lasting,
        })),
      ),
    );
  } finally {
    await stage.end();
  }
}

async function attempt(each: Case, { operation, nth, lasting }: Attempt): Promise<void> {
  const stage = new FaultStage();
  const { faults } = stage.host;
  try {
    await stage.start(each.setup ?? [], each.guest ?? null);
    const before = await stage.picture(each.reopens !== true);
    const calls = faults.count(operation);
    faults.add({ operation, nth, lasting, errno: operation === 'lock' ? 'ENOLCK' : 'EIO' });
    const failure: unknown = await stage.run(each.command).then(
      () => null,
      (error: unknown) => error,
    );
    expect(faults.count(operation) - calls, 'calls of the kind').toBeGreaterThanOrEqual(nth);
    faults.clear();
    if (failure === null) return;
    expect(failure).toBeInstanceOf(BlockError);
    if (each.goesThrough === true) {
      const names = [...stage.graph.nodes].map(({ name }) => name);
      expect({ names, openFiles: stage.host.openFiles }).toEqual({ names: [], openFiles: 0 });
      return;
    }
    // What cannot be synced does not become read-only again either.
    if (each.reopens === true && operation === 'sync') return;
    expect(await stage.picture(each.reopens !== true)).toEqual(before);
    // A file that could not be synced is not trusted any more.
    if (operation !== 'sync') await stage.run(each.command);
  } finally {
    await stage.end();
    expect(stage.host.openFiles, 'files left open').toBe(0);
    expect(await stage.lockable(), 'locks left').toHaveLength(5);
  }
}

describe('a fault anywhere in a command leaves everything as it was', () => {
  it.each(CASES)('$title', async (each) => {
    const attempts = await attemptsOf(each);
    expect(attempts).not.toHaveLength(0);
    for (const fault of someOf(attempts, 2, CASES.indexOf(each))) {
      try {
        await attempt(each, fault);
      } catch (error) {
        const { operation, nth, lasting } = fault;
        const which = `${operation} number ${nth}${lasting ? ' and all later ones' : ''}`;
        if (error instanceof Error) error.message += `\n(${which} failed)`;
        throw error;
      }
    }
  }, 120_000);
});
