// SPDX-License-Identifier: Apache-2.0
// Which blkdebug events an operation on a qcow2 image passes, here and in the real qemu-io.
//
// An event that is passed sets a state in which the next read of data fails: reading once after
// the operation and once after a flush tells whether the event came by then.

import { execFile, execFileSync } from 'node:child_process';
import { copyFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';

import { assert, BlockError, errnoText } from '../../src/base/index.js';
import { RequestFlag } from '../../src/block/index.js';
import type { Backend } from '../../src/block/index.js';
import { blkdebugEvent } from '../../src/drivers/filters/blkdebug/options.js';
import { createEngine } from '../../src/engine/index.js';
import { openDefaultHost } from '../../src/host/index.js';
import { READ_WRITE } from './graph.js';
import { peer } from './peers.js';

const KIB = 1024;

/** One operation in both spellings, on an image that `prepare` makes. */
export interface Operation {
  readonly name: string;
  /** Arguments of `create` in front of the size; the image is 4 MiB. */
  readonly create?: readonly string[];
  readonly backing?: boolean;
  /** Raw over a blkdebug that wants its requests aligned to 4 KiB; else qcow2. */
  readonly aligned?: boolean;
  /** qemu-io commands that fill the image; the last 64 KiB are always written. */
  readonly prepare?: readonly string[];
  readonly command: string;
  readonly run: (user: Backend) => unknown;
}

const bytes = (length: number): Uint8Array => new Uint8Array(length).fill(0xcd);
const read = (offset: number, length: number) => (user: Backend) =>
  user.read(offset, new Uint8Array(length));
const write = (offset: number, length: number, flags = 0) => (user: Backend) =>
  user.write(offset, bytes(length), flags);

export const OPERATIONS: readonly Operation[] = [
  { name: 'read of nothing', command: 'read 0 64k', run: read(0, 64 * KIB) },
  {
    name: 'read of data',
    prepare: ['write 0 64k'],
    command: 'read 0 64k',
    run: read(0, 64 * KIB),
  },
  {
    name: 'read of compressed data',
    prepare: ['write -c 0 64k'],
    command: 'read 0 64k',
    run: read(0, 64 * KIB),
  },
  { name: 'read of the backing file', backing: true, command: 'read 0 64k', run: read(0, 65_536) },
  { name: 'write of a new cluster', command: 'write 0 64k', run: write(0, 64 * KIB) },
  {
    name: 'write in place',
    prepare: ['write 0 64k'],
    command: 'write 0 64k',
    run: write(0, 64 * KIB),
  },
  { name: 'write of a part', command: 'write 4k 4k', run: write(4 * KIB, 4 * KIB) },
  {
    name: 'write of a part over the backing file',
    backing: true,
    command: 'write 4k 4k',
    run: write(4 * KIB, 4 * KIB),
  },
  {
    name: 'write of a part over compressed data',
    prepare: ['write -c 0 64k'],
    command: 'write 4k 4k',
    run: write(4 * KIB, 4 * KIB),
  },
  {
    name: 'write over zeroes',
    prepare: ['write -z 0 64k'],
    command: 'write 4k 4k',
    run: write(4 * KIB, 4 * KIB),
  },
  {
    name: 'write that adds refcount blocks',
    create: ['-o', 'cluster_size=512'],
    command: 'write 0 160k',
    run: write(0, 160 * KIB),
  },
  {
    name: 'write of zeroes',
    prepare: ['write 0 64k'],
    command: 'write -z 0 64k',
    run: (user) => user.writeZeroes(0, 64 * KIB),
  },
  {
    name: 'write of zeroes that unmaps',
    prepare: ['write 0 64k'],
    command: 'write -z -u 0 64k',
    run: (user) => user.writeZeroes(0, 64 * KIB, RequestFlag.mayUnmap),
  },
  {
    name: 'write of zeroes to nothing',
    command: 'write -z 0 64k',
    run: (user) => user.writeZeroes(0, 64 * KIB),
  },
  {
    name: 'discard',
    prepare: ['write 0 64k'],
    command: 'discard 0 64k',
    run: (user) => user.discard(0, 64 * KIB),
  },
  { name: 'flush', command: 'flush', run: (user) => user.flush() },
  {
    name: 'compressed write',
    command: 'write -c 0 64k',
    run: write(0, 64 * KIB, RequestFlag.compressed),
  },
  {
    name: 'compressed write that adds refcount blocks',
    create: ['-o', 'cluster_size=512'],
    command: 'write -c 0 160k',
    run: write(0, 160 * KIB, RequestFlag.compressed),
  },
  {
    name: 'growth without a larger L1 table',
    command: 'truncate 8M',
    run: (user) => user.node.truncate(8 * KIB * KIB, { exact: true, preallocation: 'off' }),
  },
  {
    name: 'growth with a larger L1 table',
    create: ['-o', 'cluster_size=512'],
    command: 'truncate 64M',
    run: (user) => user.node.truncate(64 * KIB * KIB, { exact: true, preallocation: 'off' }),
  },
  {
    name: 'shrinking',
    create: ['-o', 'cluster_size=512'],
    prepare: ['truncate 16M', 'write 12M 64k'],
    command: 'truncate 8M',
    run: (user) => user.node.truncate(8 * KIB * KIB, { exact: false, preallocation: 'off' }),
  },
];

/** What the data path of no format here has: saved machines and the like. */
const ELSEWHERE = /^(?:none|vmstate_|empty_image|cor_write|pwritev_rmw|reftable_)/;

export const EVENTS = blkdebugEvent.values.filter((event) => !ELSEWHERE.test(event));

/** Writes whose ends are not aligned, for the events in between. */
export const UNALIGNED: readonly Operation[] = [
  { name: 'write of a middle', aligned: true, command: 'write 512 512', run: write(512, 512) },
  { name: 'write of a head', aligned: true, command: 'write 0 5k', run: write(0, 5 * KIB) },
  { name: 'write of a tail', aligned: true, command: 'write 1k 7k', run: write(KIB, 7 * KIB) },
  { name: 'write across', aligned: true, command: 'write 1k 8k', run: write(KIB, 8 * KIB) },
];

/** Aligned requests of every kind that says how it fails. */
export const PLAIN: readonly Operation[] = [
  { name: 'read', command: 'read 0 4k', run: read(0, 4 * KIB) },
  { name: 'read further on', command: 'read 8k 8k', run: read(8 * KIB, 8 * KIB) },
  { name: 'write', command: 'write 0 4k', run: write(0, 4 * KIB) },
  { name: 'write further on', command: 'write 8k 4k', run: write(8 * KIB, 4 * KIB) },
  {
    name: 'zeroes',
    command: 'write -z 0 8k',
    run: (user) => user.writeZeroes(0, 8 * KIB),
  },
  { name: 'discard', command: 'discard 4k 4k', run: (user) => user.discard(4 * KIB, 4 * KIB) },
];

export const RMW_EVENTS = blkdebugEvent.values.filter((event) => event.startsWith('pwritev'));

const DATA_AT = 4 * KIB * KIB - 64 * KIB;

/** An operation on images of its own, made by makeImage() in the folder. */
export interface Place {
  readonly folder: string;
  readonly operation: Operation;
}

/** Makes the operation's image; gives its path. */
export function makeImage(folder: string, operation: Operation): string {
  const img = peer('qemu-img') as string;
  const isRaw = operation.aligned === true;
  const io = peer('qemu-io') as string;
  const image = join(folder, 'prepared.img');
  rmSync(image, { force: true });
  const base = join(folder, 'base.qcow2');
  if (operation.backing === true) {
    execFileSync(img, ['create', '-q', '-f', 'qcow2', base, '4M']);
    execFileSync(io, ['-c', 'write 0 128k', base]);
  }
  const backing = operation.backing === true ? ['-b', base, '-F', 'qcow2'] : [];
  const more = operation.create ?? [];
  const format = isRaw ? 'raw' : 'qcow2';
  execFileSync(img, ['create', '-q', '-f', format, ...more, ...backing, image, '4M']);
  if (isRaw) return image;
  const filled = [`write ${DATA_AT} 64k`, ...(operation.prepare ?? [])];
  execFileSync(io, [...filled.flatMap((command) => ['-c', command]), image]);
  return image;
}

export interface RuleSet {
  readonly 'inject-error': readonly Readonly<Record<string, unknown>>[];
  readonly 'set-state'?: readonly Readonly<Record<string, unknown>>[];
}

function watching(event: string): RuleSet {
  return {
    'set-state': [{ event, state: 1, new_state: 2 }],
    'inject-error': [{ event: 'read_aio', state: 2, errno: 28, once: true }],
  };
}

function failing(event: string): RuleSet {
  return { 'inject-error': [{ event, errno: 28, once: true }] };
}

/** Nothing here is about durability, and syncs take most of the time. */
function imageOptions(place: Place, image: string, rules: RuleSet): Record<string, unknown> {
  const isRaw = place.operation.aligned === true;
  const below = { driver: 'file', filename: image, cache: { 'no-flush': true } };
  const file = { driver: 'blkdebug', image: below, ...rules, ...(isRaw ? { align: 4096 } : {}) };
  return { driver: isRaw ? 'raw' : 'qcow2', discard: 'unmap', file };
}

/** When the event came: with the operation, with the flush behind it, or not at all. */
export type Moment = 'operation' | 'flush' | 'never' | 'failed';

function momentOf(results: readonly boolean[]): Moment {
  const [operation, first, , second] = results;
  if (operation === false) return 'failed';
  if (first === false) return 'operation';
  return second === false ? 'flush' : 'never';
}

/** One opening of a fresh copy of the image, with rules. */
interface Run {
  readonly rules: RuleSet;
  readonly operations: readonly Operation[];
}

const PROBE: Operation = {
  name: 'probe',
  command: `read ${DATA_AT} 512`,
  run: read(DATA_AT, 512),
};
const FLUSH: Operation = { name: 'flush', command: 'flush', run: (user) => user.flush() };

const execute = promisify(execFile);

/** A command that always prints the same line, opened or not. */
const MARK = 'help length';
const MARK_LINE = /^length .*\n/m;

/** What one qemu-io prints for the commands of each run; null where it does not open the image. */
async function theirOutputs(
  place: Place,
  runs: readonly Run[],
): Promise<readonly (readonly string[] | null)[]> {
  const images = runs.map((_, index) => join(place.folder, `theirs-${index}.img`));
  const commands = runs.flatMap(({ rules, operations }, index) => {
    const image = images[index] as string;
    copyFileSync(join(place.folder, 'prepared.img'), image);
    const name = `json:${JSON.stringify(imageOptions(place, image, rules))}`;
    const opened = [`open -d unmap -t writeback ${name}`, 'length', MARK];
    return [...opened, ...operations.flatMap(({ command }) => [command, MARK]), 'close'];
  });
  const args = commands.flatMap((command) => ['-c', command]);
  const ended = execute(peer('qemu-io') as string, args, { maxBuffer: 2 ** 24 });
  const { stdout } = await ended.catch((error: unknown) => error as { stdout: string });
  for (const image of images) rmSync(image);
  const parts = stdout.split(MARK_LINE);
  const marks = runs.reduce((sum, { operations }) => sum + 1 + operations.length, 0);
  assert(parts.length === marks + 1, 'qemu-io carries out every command');
  let at = 0;
  return runs.map(({ operations }) => {
    const isOpen = /^[\d.]+ (?:[KMG]iB|bytes)$/m.test(parts[at] ?? '');
    const shown = parts.slice(at + 1, at + 1 + operations.length);
    at += 1 + operations.length;
    return isOpen ? shown : null;
  });
}

/** How each of the operations fails, or null for it, in each run. */
async function theirFailures(
  place: Place,
  runs: readonly Run[],
): Promise<readonly (readonly (string | null)[] | null)[]> {
  const outputs = await theirOutputs(place, runs);
  return outputs.map(
    (output) => output?.map((part) => /failed: (.*)/.exec(part)?.[1] ?? null) ?? null,
  );
}

async function ourFailures(
  { folder, operation }: Place,
  runs: readonly Run[],
): Promise<readonly (readonly (string | null)[])[]> {
  const image = join(folder, 'ours.img');
  const engine = await createEngine({ host: openDefaultHost(), lanes: 0 });
  const all: (readonly (string | null)[])[] = [];
  try {
    for (const { rules, operations } of runs) {
      copyFileSync(join(folder, 'prepared.img'), image);
      const options = imageOptions({ folder, operation }, image, rules);
      const node = await engine.addNode({ driver: '', 'node-name': 'image', ...options });
      const user = await engine.graph.attach(node, 'guest', READ_WRITE);
      const failures: (string | null)[] = [];
      for (const { run } of operations) failures.push(await failureOf(() => run(user)));
      await user.detach();
      // A failure that nothing met until now is met by the last flush.
      await failureOf(() => engine.graph.close(node));
      all.push(failures);
    }
  } finally {
    await failureOf(() => engine.close());
    rmSync(image);
  }
  return all;
}

/** The failures of the runs, on either side. */
export interface BothSides<T> {
  readonly theirs: T;
  readonly ours: T;
}

export async function failuresOf(
  place: Place,
  runs: readonly Run[],
): Promise<BothSides<readonly (readonly (string | null)[] | null)[]>> {
  const [theirs, ours] = await Promise.all([theirFailures(place, runs), ourFailures(place, runs)]);
  return { theirs, ours };
}

/** When each of the events comes. */
export async function momentsOf(
  place: Place,
  events: readonly string[],
): Promise<BothSides<readonly Moment[]>> {
  const operations = [place.operation, PROBE, FLUSH, PROBE];
  const runs = events.map((event) => ({ rules: watching(event), operations }));
  const { theirs, ours } = await failuresOf(place, runs);
  const moments = (all: typeof theirs): readonly Moment[] =>
    all.map((failures) =>
      failures === null ? 'failed' : momentOf(failures.map((failure) => failure === null)),
    );
  return { theirs: moments(theirs), ours: moments(ours) };
}

/** The text of the operation's failure when what follows the event fails; null: it does not. */
export async function failuresAfter(
  place: Place,
  events: readonly string[],
): Promise<BothSides<readonly (string | null)[]>> {
  const operations = [place.operation];
  const runs = events.map((event) => ({ rules: failing(event), operations }));
  const { theirs, ours } = await failuresOf(place, runs);
  const first = (all: typeof theirs): readonly (string | null)[] =>
    all.map((failures) => (failures === null ? 'to open' : (failures[0] ?? null)));
  return { theirs: first(theirs), ours: first(ours) };
}

async function failureOf(work: () => unknown): Promise<string | null> {
  try {
    await work();
    return null;
  } catch (error) {
    if (error instanceof BlockError) return errnoText(error.errno);
    throw error;
  }
}
