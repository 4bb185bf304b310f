// SPDX-License-Identifier: Apache-2.0
// Which blkdebug events an operation on a qcow2 image passes, here and in the real qemu-io.
//
// An event that is passed sets a state in which the next read of data fails: reading once after
// the operation and once after a flush tells whether the event came by then.

import { execFile, execFileSync } from 'node:child_process';
import { copyFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';

import { BlockError, errnoText } from '../../src/base/index.js';
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

export interface EventRun {
  readonly folder: string;
  readonly operation: Operation;
  readonly event: string;
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

function imageOptions(run: EventRun, image: string, rules: RuleSet): Record<string, unknown> {
  const isRaw = run.operation.aligned === true;
  const below = { driver: 'file', filename: image };
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

const execute = promisify(execFile);

/** What qemu-io prints for each of the commands; null when it does not open the image. */
async function theirOutput(
  run: EventRun,
  rules: RuleSet,
  commands: readonly string[],
): Promise<readonly string[] | null> {
  const image = join(run.folder, `theirs-${run.event}.img`);
  copyFileSync(join(run.folder, 'prepared.img'), image);
  const name = `json:${JSON.stringify(imageOptions(run, image, rules))}`;
  const args = commands.flatMap((command) => ['-c', command, '-c', 'length']);
  const cache = ['-d', 'unmap', '-t', 'writeback'];
  const ended = execute(peer('qemu-io') as string, [...cache, ...args, name]);
  const { stdout } = await ended.catch((error: unknown) => error as { stdout: string });
  rmSync(image);
  const parts = stdout.split(/^[\d.]+ (?:[KMG]iB|bytes)$\n/m);
  return parts.length > commands.length ? parts.slice(0, commands.length) : null;
}

async function ourUser<T>(
  run: EventRun,
  rules: RuleSet,
  work: (user: Backend) => Promise<T>,
): Promise<T> {
  const image = join(run.folder, `ours-${run.event}.img`);
  copyFileSync(join(run.folder, 'prepared.img'), image);
  const engine = await createEngine({ host: openDefaultHost(), lanes: 0 });
  try {
    const options = { driver: '', 'node-name': 'image', ...imageOptions(run, image, rules) };
    const node = await engine.addNode(options);
    const user = await engine.graph.attach(node, 'guest', READ_WRITE);
    const result = await work(user);
    await user.detach();
    return result;
  } finally {
    // A failure that nothing met until now is met by the last flush.
    await failureOf(() => engine.close());
    rmSync(image);
  }
}

export async function theirMoment(run: EventRun): Promise<Moment> {
  const probe = `read ${DATA_AT} 512`;
  const commands = [run.operation.command, probe, 'flush', probe];
  const parts = await theirOutput(run, watching(run.event), commands);
  return parts === null ? 'failed' : momentOf(parts.map((part) => !part.includes('failed:')));
}

export function ourMoment(run: EventRun): Promise<Moment> {
  return ourUser(run, watching(run.event), async (user) => {
    const probe = read(DATA_AT, 512);
    const results: boolean[] = [];
    for (const step of [run.operation.run, probe, (one: Backend) => one.flush(), probe]) {
      results.push((await failureOf(() => step(user))) === null);
    }
    return momentOf(results);
  });
}

/** The text of the operation's failure, when what follows the event fails; null: it does not. */
export async function theirFailure(run: EventRun): Promise<string | null> {
  const parts = await theirOutput(run, failing(run.event), [run.operation.command]);
  const output = parts?.[0] ?? 'failed: to open';
  return /failed: (.*)/.exec(output)?.[1] ?? null;
}

export function ourFailure(run: EventRun): Promise<string | null> {
  return ourUser(run, failing(run.event), (user) => failureOf(() => run.operation.run(user)));
}

/** How each of the operations fails under the rules, or null for it. */
export async function theirFailures(
  run: EventRun,
  rules: RuleSet,
  operations: readonly Operation[],
): Promise<readonly (string | null)[] | null> {
  const output = await theirOutput(run, rules, operations.map(({ command }) => command));
  return output?.map((part) => /failed: (.*)/.exec(part)?.[1] ?? null) ?? null;
}

export function ourFailures(
  run: EventRun,
  rules: RuleSet,
  operations: readonly Operation[],
): Promise<readonly (string | null)[]> {
  return ourUser(run, rules, async (user) => {
    const failures: (string | null)[] = [];
    for (const { run: work } of operations) failures.push(await failureOf(() => work(user)));
    return failures;
  });
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
