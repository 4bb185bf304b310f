// SPDX-License-Identifier: Apache-2.0
// One block job measured on both daemons: the time from its command to its conclusion, processor
// time of the daemon in that span, and how long a flush of its target takes afterwards.
// Concluded means on disk for Blockwright; the reference flushes mirrors and commits of the active
// layer before they are READY, nothing else. So the time with that flush compares equal durability.
import { closeSync, fdatasyncSync, openSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import type { QmpClient } from 'blockwright/client';
import { startDaemon, timeJob, type Who } from './daemons.js';
import { type Content, warm, writeContent } from './data.js';
import type { BenchContext, Paired, Result } from './harness.js';
import { alternate, median, sameContent, timeCommand } from './harness.js';

export interface JobBench {
  readonly question: string;
  /** `--blockdev` values, the lowest node first. */
  blockdevs(who: Who): readonly string[];
  /** Puts every file back to the state before a run. */
  reset(who: Who): void | Promise<void>;
  /** Starts the job `id`, which must not be dismissed by itself. */
  start(client: QmpClient, id: string): Promise<unknown>;
  /** The qcow2 image that the job writes. */
  target(who: Who): string;
  /** A qcow2 image with what the target must read as. */
  readonly expected: string;
  /** Files to remove in the end. */
  readonly files: readonly string[];
}

const JOB = 'job';

/** A job that copies a whole disk to a fresh qcow2 image. */
export async function measureWholeCopy(
  context: BenchContext,
  command: 'blockdev-backup' | 'blockdev-mirror',
  content: Content,
): Promise<Result> {
  const source = join(context.folder, 'source.qcow2');
  const target = { ours: join(context.folder, 'ours'), peer: join(context.folder, 'peer') };
  await makeImage(context, content, source);
  return measureJob(context, {
    question: `${command}, ${content}`,
    blockdevs: (who) => [qcow2Node('disk', source), qcow2Node('target', target[who])],
    async reset(who) {
      rmSync(target[who], { force: true });
      await makeEmpty(context, target[who]);
      warm(source);
    },
    start: (client, id) =>
      client.execute(command, {
        'job-id': id,
        device: 'disk',
        target: 'target',
        sync: 'full',
        'auto-dismiss': false,
      }),
    target: (who) => target[who],
    expected: source,
    files: [source, ...Object.values(target)],
  });
}

export async function measureJob(context: BenchContext, bench: JobBench): Promise<Result> {
  context.log(bench.question);
  const starts: Record<Who, number[]> = { ours: [], peer: [] };
  const cpu: Record<Who, number[]> = { ours: [], peer: [] };
  const flush: Record<Who, number[]> = { ours: [], peer: [] };
  const runOne = async (who: Who): Promise<number> => {
    const daemon = await startDaemon(context, who, bench.blockdevs(who));
    starts[who].push(daemon.startSeconds);
    try {
      const before = daemon.cpuSeconds();
      const seconds = await timeJob(daemon.client, JOB, () => bench.start(daemon.client, JOB));
      cpu[who].push(daemon.cpuSeconds() - before);
      flush[who].push(timeFlush(bench.target(who)));
      return seconds;
    } finally {
      await daemon.stop();
    }
  };
  const real = context.peer('qemu-storage-daemon');
  const times = await alternate(context, {
    reset: (who) => bench.reset(who),
    ours: () => runOne('ours'),
    peer: real === null ? null : () => runOne('peer'),
  });
  context.log(startLine(starts));
  const verified = await sameContent(
    context,
    { path: bench.expected, format: 'qcow2' },
    { path: bench.target('ours'), format: 'qcow2' },
  );
  for (const path of bench.files) rmSync(path, { force: true });
  return {
    question: bench.question,
    bytes: context.size,
    ...times,
    startUpIncluded: { ours: 0, peer: real === null ? null : 0 },
    verified,
    cpu: timedRounds(cpu, real !== null),
    flush: timedRounds(flush, real !== null),
  };
}

/** Without the untimed run that comes first. */
function timedRounds(values: Record<Who, number[]>, withPeer: boolean): Paired {
  return { ours: values.ours.slice(1), peer: withPeer ? values.peer.slice(1) : null };
}

function timeFlush(path: string): number {
  const file = openSync(path, 'r+');
  try {
    const begin = performance.now();
    fdatasyncSync(file);
    return (performance.now() - begin) / 1000;
  } finally {
    closeSync(file);
  }
}

/** What starting the daemons took, which no figure contains. */
function startLine(starts: Readonly<Record<Who, readonly number[]>>): string {
  const text = (['ours', 'peer'] as const)
    .filter((who) => starts[who].length > 0)
    .map((who) => `${(median(starts[who]) * 1000).toFixed(0)} ms ${who}`);
  return `  start of the daemon, not in the figures: ${text.join(', ')}`;
}

/** The real tool makes the images when it is there, so that both daemons get the same ones. */
export function imageTool(context: BenchContext): readonly string[] {
  const real = context.peer('qemu-img');
  return real === null ? [...context.ours, 'img'] : [real];
}

/** A qcow2 image with the content, made of a raw one. */
export async function makeImage(
  context: BenchContext,
  content: Content,
  path: string,
): Promise<void> {
  const plain = join(context.folder, 'plain');
  writeContent(plain, context.size, content);
  const tool = imageTool(context);
  await timeCommand([...tool, 'convert', '-f', 'raw', '-O', 'qcow2', plain, path]);
  rmSync(plain);
}

/** An empty qcow2 image as large as the disks; an overlay when it has a backing file. */
export async function makeEmpty(
  context: BenchContext,
  path: string,
  backing?: string,
): Promise<void> {
  const below = backing === undefined ? [] : ['-b', backing, '-F', 'qcow2'];
  const size = backing === undefined ? [`${context.size}`] : [];
  const create = ['create', '-q', '-f', 'qcow2', ...below, path, ...size];
  await timeCommand([...imageTool(context), ...create]);
}

/** `--blockdev` value of a qcow2 image. */
export function qcow2Node(name: string, path: string, backing?: string): string {
  const below = backing === undefined ? '' : `,backing=${backing}`;
  return `driver=qcow2,node-name=${name},file.driver=file,file.filename=${path}${below}`;
}
