// SPDX-License-Identifier: Apache-2.0
// Quorums, compared with a real daemon line by line: options, children that come and go, events of
// children that fail or differ, and what the files hold afterwards.

import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';

import { startOwnDaemon } from '../helpers/own-daemon.js';
import { peer } from '../helpers/peers.js';
import { startRealDaemon } from '../helpers/real-daemon.js';
import { compare, graphByNames, hasReference, hello, withoutSizes } from '../helpers/reference.js';
import { command, playAll, untilEvent } from '../helpers/transcript.js';
import type { Line, Step } from '../helpers/transcript.js';

const MIB = 1024 * 1024;

const add = (options: Line): string => command('blockdev-add', options);
const quorum = (options: Line): string => add({ driver: 'quorum', 'node-name': 'q', ...options });
const del = (name: string): string => command('blockdev-del', { 'node-name': name });
const change = (args: Line): string => command('x-blockdev-change', { parent: 'q', ...args });
const graph = command('x-debug-query-block-graph');

function nulls(...names: readonly string[]): string[] {
  return names.map((name) => add({ driver: 'null-co', 'node-name': name, size: MIB }));
}

/** Members of `json:` names come in the order of a hash table there. */
function namesInOneOrder(line: Line): Line {
  const text = JSON.stringify(withoutSizes(graphByNames(line)), (_, value: unknown) => {
    const isJsonName = typeof value === 'string' && value.startsWith('json:');
    return isJsonName ? { json: JSON.parse(value.slice('json:'.length)) as unknown } : value;
  });
  return JSON.parse(text) as Line;
}

describe.skipIf(!hasReference)('as a real daemon opens a quorum', () => {
  it('with its options, one or another of which is wrong', () =>
    compare(
      () => [
        hello,
        ...nulls('n0', 'n1'),
        add({ driver: 'null-co', 'node-name': 'small', size: 65_536 }),
        quorum({ 'vote-threshold': 1 }),
        quorum({ children: [] }),
        quorum({ children: [], 'vote-threshold': 1 }),
        quorum({ children: 'n0', 'vote-threshold': 1 }),
        ...[0, -1, 2 ** 32, 2].map((count) =>
          quorum({ children: ['n0'], 'vote-threshold': count }),
        ),
        quorum({ children: ['n0'], 'vote-threshold': 2, 'read-pattern': 'fifo' }),
        quorum({ children: ['n0'], 'vote-threshold': 1, 'read-pattern': 'other' }),
        quorum({ children: ['n0', 'n1'], 'vote-threshold': 1, blkverify: true }),
        quorum({
          children: ['n0', 'n1'],
          'vote-threshold': 2,
          blkverify: true,
          'rewrite-corrupted': true,
        }),
        quorum({ children: ['n0', 'n1', 'none'], 'vote-threshold': 1 }),
        quorum({ children: ['n0', 'small'], 'vote-threshold': 1 }),
        graph,
        quorum({
          children: ['n0', 'n1'],
          'vote-threshold': 1,
          blkverify: true,
          'rewrite-corrupted': true,
          'read-pattern': 'fifo',
        }),
        graph,
        del('q'),
        quorum({ children: ['n0', 'n0'], 'vote-threshold': 1 }),
        graph,
      ],
      namesInOneOrder,
    ));

  it('and shows its nodes, edges and names, and what they refuse', () =>
    compare(
      () => [
        hello,
        ...nulls('n0'),
        quorum({
          children: [
            'n0',
            { driver: 'null-co', size: MIB },
            { driver: 'null-co', size: MIB, 'node-name': 'in2' },
          ],
          'vote-threshold': 2,
          'rewrite-corrupted': true,
        }),
        graph,
        command('query-named-block-nodes', { flat: true }),
        del('in2'),
        del('n0'),
        command('blockdev-reopen', {
          options: [
            { driver: 'quorum', 'node-name': 'q', children: ['n0'], 'vote-threshold': 1 },
          ],
        }),
        command('block_resize', { 'node-name': 'q', size: 65_536 }),
        command('block_resize', { 'node-name': 'n0', size: 65_536 }),
        add({ driver: 'raw', 'node-name': 'r', file: 'q' }),
        graph,
        command('query-named-block-nodes', { flat: true }),
        del('q'),
        del('r'),
        del('q'),
        graph,
      ],
      namesInOneOrder,
    ));

  it('below qcow2, whose file it stores three times', () =>
    compare(
      (directory) => {
        const file = (name: string): Line => ({
          driver: 'file',
          filename: join(directory, name),
          'node-name': name,
        });
        return [
          hello,
          add({
            driver: 'qcow2',
            'node-name': 'top',
            backing: null,
            file: {
              driver: 'quorum',
              'node-name': 'q',
              'vote-threshold': 1,
              children: [file('base.qcow2'), file('base.qcow2')],
            },
          }),
          add({
            driver: 'qcow2',
            'node-name': 'top',
            backing: null,
            file: {
              driver: 'quorum',
              'node-name': 'q',
              'vote-threshold': 1,
              children: [file('base.qcow2')],
            },
          }),
          graph,
          quorum({ children: ['base.qcow2'], 'vote-threshold': 1, 'node-name': 'other' }),
        ];
      },
      namesInOneOrder,
    ));

  it('below an overlay, by a snapshot and by the name in a header', () =>
    compare(
      (directory) => {
        const file = (name: string): Line => ({
          driver: 'file',
          filename: join(directory, name),
        });
        return [
          hello,
          quorum({
            children: [{ driver: 'raw', 'node-name': 'r', file: file('base.qcow2') }],
            'vote-threshold': 1,
          }),
          add({ driver: 'qcow2', 'node-name': 'top', backing: null, file: file('top.qcow2') }),
          command('blockdev-snapshot', { node: 'q', overlay: 'top' }),
          graph,
          change({ child: 'children.0' }),
          del('q'),
          del('top'),
          del('q'),
          quorum({ children: [file('top.qcow2')], 'vote-threshold': 1 }),
          add({ driver: 'qcow2', 'node-name': 'top', file: 'q' }),
          graph,
          add({ driver: 'qcow2', 'node-name': 'top', file: 'q', backing: null }),
          graph,
          command('query-blockstats', { 'query-nodes': true }),
        ];
      },
      (line) => withoutDiscards(namesInOneOrder(line)),
    ));

  it('read-only, and writable over children that are not', () =>
    compare(
      (directory) => {
        const file = { driver: 'file', filename: join(directory, 'base.qcow2') };
        return [
          hello,
          ...nulls('n0'),
          add({ driver: 'null-co', 'node-name': 'ro', size: MIB, 'read-only': true }),
          quorum({ children: ['n0', 'ro'], 'vote-threshold': 1, 'rewrite-corrupted': true }),
          quorum({ children: ['n0', 'n0'], 'vote-threshold': 1, 'rewrite-corrupted': true }),
          quorum({ children: ['n0', 'ro'], 'vote-threshold': 1 }),
          command('block-dirty-bitmap-add', { node: 'q', name: 'b' }),
          add({ driver: 'raw', 'node-name': 'r', file: 'q' }),
          del('r'),
          del('q'),
          quorum({
            children: [file],
            'vote-threshold': 1,
            'rewrite-corrupted': true,
            'read-only': true,
          }),
          graph,
          quorum({ children: [file], 'vote-threshold': 1, 'read-only': true }),
          graph,
          change({ node: 'n0' }),
          graph,
        ];
      },
      namesInOneOrder,
    ));

  it('below a format that is reopened or gets an overlay', () =>
    compare(
      (directory) => {
        const file = (name: string): Line => ({
          driver: 'file',
          filename: join(directory, name),
        });
        const below = { driver: 'quorum', 'node-name': 'q', 'vote-threshold': 1 };
        const base = {
          driver: 'qcow2',
          'node-name': 'base',
          file: { ...below, children: [file('base.qcow2')] },
        };
        const reopenBase = (options: Line): string =>
          command('blockdev-reopen', {
            options: [{ driver: 'qcow2', 'node-name': 'base', ...options }],
          });
        return [
          hello,
          add(base),
          reopenBase({ file: 'q', 'read-only': true }),
          reopenBase({ file: 'q' }),
          reopenBase({ file: { ...below, children: ['none'] } }),
          graph,
          ...nulls('n0'),
          add({ driver: 'qcow2', 'node-name': 'top', backing: null, file: file('top.qcow2') }),
          command('blockdev-snapshot', { node: 'base', overlay: 'top' }),
          graph,
          change({ node: 'top' }),
          del('top'),
          del('base'),
          graph,
        ];
      },
      namesInOneOrder,
    ));

  it('whose children come and go', () =>
    compare(
      () => [
        hello,
        ...nulls('n0', 'n1', 'n2', 'n4', 'n5', 'n6'),
        add({ driver: 'null-co', 'node-name': 'n3', size: 65_536 }),
        quorum({ children: ['n0', 'n1'], 'vote-threshold': 2 }),
        command('x-blockdev-change', {}),
        command('x-blockdev-change', { parent: 'none' }),
        command('x-blockdev-change', { parent: 'none', node: 'n2' }),
        change({}),
        change({ child: 'a', node: 'b' }),
        change({ node: 'none' }),
        change({ child: 'none' }),
        change({ node: 'n2' }),
        graph,
        change({ node: 'n2' }),
        change({ node: 'n3' }),
        change({ node: 'q' }),
        change({ child: 'children.1' }),
        change({ node: 'n1' }),
        graph,
        change({ child: 'children.3' }),
        change({ node: 'n4' }),
        change({ child: 'children.3' }),
        change({ child: 'children.5' }),
        change({ node: 'n4' }),
        change({ child: 'children.2' }),
        change({ child: 'children.0' }),
        change({ child: 'children.4' }),
        command('x-blockdev-change', { parent: 'n0', node: 'n5' }),
        command('x-blockdev-change', { parent: 'n0', child: 'file' }),
        add({ driver: 'raw', 'node-name': 'r', file: 'q' }),
        change({ node: 'r' }),
        command('x-blockdev-change', { parent: 'r', node: 'n5' }),
        command('x-blockdev-change', { parent: 'r', child: 'file' }),
        change({ node: 'n6' }),
        graph,
        command('query-named-block-nodes', { flat: true }),
        del('n6'),
        del('r'),
        del('q'),
        quorum({ children: ['n0', 'n1'], 'vote-threshold': 2, blkverify: true }),
        change({ node: 'n2' }),
        change({ child: 'children.0' }),
        del('q'),
        quorum({
          children: ['n0', { driver: 'null-co', 'node-name': 'inl', size: MIB }],
          'vote-threshold': 1,
        }),
        change({ child: 'children.1' }),
        graph,
      ],
      namesInOneOrder,
    ));
});

/** How much was discarded is not compared here. */
function withoutDiscards(line: Line): Line {
  const text = JSON.stringify(line, (key, value: unknown) =>
    key === 'driver-specific' || key === 'wr_highest_offset' ? undefined : value,
  );
  return JSON.parse(text) as Line;
}

type Patch = readonly [offset: number, length: number, byte: number];

/** One request of a job. */
const DISK_BYTES = 65_536;

/** Ones with some bytes changed. */
function disk(patches: readonly Patch[]): Buffer {
  const bytes = Buffer.alloc(DISK_BYTES, 1);
  for (const [offset, length, byte] of patches) bytes.fill(byte, offset, offset + length);
  return bytes;
}

interface Faults {
  readonly event?: string;
  readonly errno?: number;
  readonly iotype?: string;
}

interface Play {
  readonly disks: readonly (readonly Patch[])[];
  readonly faults?: readonly (Faults | null)[];
  readonly options: Line;
  readonly direction: 'from' | 'to';
}

function steps(directory: string, { disks, faults, options, direction }: Play): Step[] {
  const children = disks.map((patches, index) => {
    const filename = join(directory, `c${index}`);
    writeFileSync(filename, disk(patches));
    const file = { driver: 'file', filename };
    const fault = faults?.[index] ?? null;
    const below =
      fault === null ? file : { driver: 'blkdebug', image: file, 'inject-error': [fault] };
    return { driver: 'raw', 'node-name': `c${index}`, file: below };
  });
  const [device, target] = direction === 'from' ? ['q', 'n'] : ['n', 'q'];
  const other = join(directory, 'other');
  writeFileSync(other, Buffer.alloc(DISK_BYTES, 5));
  return [
    hello,
    add({ driver: 'file', 'node-name': 'n', filename: other }),
    quorum({ children, ...options }),
    untilEvent('null j', 'blockdev-backup', { 'job-id': 'j', device, target, sync: 'full' }),
  ];
}

/** Where the bytes of each child change to which other byte. */
function readBack(directory: string, count: number): string[] {
  return Array.from({ length: count }, (_, index) => {
    const bytes = readFileSync(join(directory, `c${index}`));
    const runs: string[] = [];
    for (const [at, byte] of bytes.entries()) {
      if (at === 0 || byte !== bytes[at - 1]) runs.push(`${at}=${byte}`);
    }
    return runs.join(' ');
  });
}

/** What a play says about votes and jobs, and the bytes of its children afterwards. */
async function outcome(play: Play, real: boolean): Promise<unknown> {
  return await inDirectory(async (directory) => {
    const said = await conversation(directory, steps(directory, play), real);
    const lines = said.map((step) =>
      step.said
        .filter((line) => line['event'] !== 'JOB_STATUS_CHANGE')
        // A reply comes before or after the first event, as the job goes.
        .map(inOneOrder)
        .toSorted((a, b) => Number('return' in a) - Number('return' in b)),
    );
    return { lines, disks: readBack(directory, play.disks.length) };
  });
}

async function inDirectory<T>(work: (directory: string) => Promise<T>): Promise<T> {
  const directory = mkdtempSync(join(tmpdir(), 'quorum-'));
  try {
    return await work(directory);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

async function conversation(
  directory: string,
  list: readonly Step[],
  real: boolean,
): ReturnType<typeof playAll> {
  if (real) {
    await using daemon = await startRealDaemon(peer('qemu-storage-daemon') as string, directory);
    return await playAll(daemon.socket, list);
  }
  await using daemon = await startOwnDaemon(directory);
  return await playAll(await daemon.connect(), list);
}

/** The events of flushes of an image that is written to and closed. */
function flushes(errnos: readonly (number | null)[], real: boolean): Promise<unknown> {
  return inDirectory(async (directory) => {
    const path = (name: string): string => join(directory, name);
    writeFileSync(path('other'), Buffer.alloc(DISK_BYTES, 5));
    const children = errnos.map((errno, index) => {
      const image = { driver: 'file', filename: path(`c${index}`) };
      const create = ['create', '-q', '-f', 'qcow2', image.filename, String(DISK_BYTES)];
      execFileSync(peer('qemu-img') as string, create);
      if (errno === null) return image;
      const faults = [fault('flush', errno)];
      return { driver: 'blkdebug', 'node-name': `c${index}`, image, 'inject-error': faults };
    });
    const job = { 'job-id': 'j', device: 'n', target: 'd', sync: 'full' };
    const list = [
      hello,
      add({ driver: 'file', 'node-name': 'n', filename: path('other') }),
      quorum({ children, 'vote-threshold': 2 }),
      add({ driver: 'qcow2', 'node-name': 'd', file: 'q' }),
      untilEvent('null j', 'blockdev-backup', job),
      del('d'),
    ];
    const said = await conversation(directory, list, real);
    const lines = said.flatMap((step) => step.said);
    return lines.filter(({ event }) => String(event).startsWith('QUORUM')).map(inOneOrder);
  });
}

function inOneOrder(line: Line): Line {
  const data = line['data'];
  if (typeof data !== 'object' || data === null) return line;
  const members = Object.entries(data).toSorted(([a], [b]) => (a < b ? -1 : 1));
  return { event: line['event'], data: Object.fromEntries(members) };
}

const A: Patch = [4096, 100, 7];
const B: Patch = [4096, 100, 8];
const two = { 'vote-threshold': 2 };
const one = { 'vote-threshold': 1 };
const fault = (iotype: string, errno: number): Faults => ({ event: 'none', errno, iotype });
const noSpace = (iotype: string): Faults => fault(iotype, 28);
const broken = (iotype: string): Faults => fault(iotype, 5);

const plays: Readonly<Record<string, Play>> = {
  'one child differs': { disks: [[], [A], []], options: two, direction: 'from' },
  'all children differ': { disks: [[], [A], [B]], options: two, direction: 'from' },
  'one of two differs': { disks: [[], [A]], options: two, direction: 'from' },
  'one is enough and all differ': {
    disks: [[], [A], [B]],
    options: { ...one, 'rewrite-corrupted': true },
    direction: 'from',
  },
  'what differs is rewritten': {
    disks: [[A, [1000, 1, 9]], [], []],
    options: { ...two, 'rewrite-corrupted': true },
    direction: 'from',
  },
  'seven vote': {
    disks: [[], [A], [A], [B], [B], [], []],
    options: { 'vote-threshold': 3, 'rewrite-corrupted': true },
    direction: 'from',
  },
  'one child cannot read': {
    disks: [[], [], []],
    faults: [null, noSpace('read')],
    options: two,
    direction: 'from',
  },
  'one cannot read, another differs': {
    disks: [[], [], [B]],
    faults: [null, noSpace('read')],
    options: two,
    direction: 'from',
  },
  'two cannot read': {
    disks: [[], [], []],
    faults: [null, noSpace('read'), broken('read')],
    options: two,
    direction: 'from',
  },
  'the first two cannot read and the third is asked': {
    disks: [[], [], [B]],
    faults: [noSpace('read'), broken('read')],
    options: { ...two, 'read-pattern': 'fifo' },
    direction: 'from',
  },
  'none can read and all were asked': {
    disks: [[], []],
    faults: [noSpace('read'), broken('read')],
    options: { ...one, 'read-pattern': 'fifo' },
    direction: 'from',
  },
  'one child cannot write': {
    disks: [[], [], []],
    faults: [null, noSpace('write')],
    options: two,
    direction: 'to',
  },
  'two children cannot write': {
    disks: [[], [], []],
    faults: [null, noSpace('write'), broken('write')],
    options: two,
    direction: 'to',
  },
  'two children cannot write, the other way round': {
    disks: [[], [], []],
    faults: [broken('write'), noSpace('write')],
    options: two,
    direction: 'to',
  },
};

describe.skipIf(!hasReference)('a quorum does as in a real daemon when', () => {
  it.each(Object.entries(plays))('%s', async (_, play) => {
    const ours = JSON.stringify(await outcome(play, false), null, 1);
    expect(ours).toBe(JSON.stringify(await outcome(play, true), null, 1));
  });

  it.each([
    ['one child', [null, 28, null]],
    ['two children', [null, 28, 5]],
    ['two children the other way round', [null, 5, 28]],
  ])('%s cannot flush', async (_, errnos) => {
    expect(await flushes(errnos, false)).toEqual(await flushes(errnos, true));
  });
});
