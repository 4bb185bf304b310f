// SPDX-License-Identifier: Apache-2.0
// Block jobs timed over QMP: ours and the real storage daemon get the same command line and the
// same typed client. A job's time runs from its command to the event that says it concluded;
// starting the daemon and opening the images happen before.
import { spawn } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { connect, type QmpClient } from 'blockwright/client';
import type { BenchContext } from './harness.js';

export type Who = 'ours' | 'peer';

export interface Daemon {
  readonly client: QmpClient;
  /** Seconds from spawn to the first answer. */
  readonly startSeconds: number;
  /** Processor time that its threads have used so far. */
  cpuSeconds(): number;
  stop(): Promise<void>;
}

const START_TIMEOUT_MS = 20_000;
const POLL_MS = 2;

/** Starts a storage daemon with the given nodes (`--blockdev` values) and connects to it. */
export async function startDaemon(
  context: BenchContext,
  who: Who,
  blockdevs: readonly string[],
): Promise<Daemon> {
  const socket = join(context.folder, `${who}.sock`);
  const pidFile = join(context.folder, `${who}.pid`);
  for (const path of [socket, pidFile]) rmSync(path, { force: true });
  const tool = who === 'ours' ? [...context.ours, 'storage-daemon'] : [storageDaemon(context)];
  const [program = '', ...first] = tool;
  const args = [
    ...first,
    '--chardev', `socket,id=monitor,path=${socket},server=on,wait=off`,
    '--monitor', 'chardev=monitor',
    '--pidfile', pidFile,
    ...blockdevs.flatMap((value) => ['--blockdev', value]),
  ];
  const begin = performance.now();
  const child = spawn(program, args, { stdio: ['ignore', 'ignore', 'inherit'] });
  const ended = new Promise<void>((resolve) => child.once('exit', () => resolve()));
  try {
    while (!existsSync(pidFile)) {
      if (child.exitCode !== null) throw new Error(`${program} ended with ${child.exitCode}`);
      if (performance.now() - begin > START_TIMEOUT_MS) throw new Error(`${program} is not ready`);
      await delay(POLL_MS);
    }
    const client = await connect({ path: socket });
    const startSeconds = (performance.now() - begin) / 1000;
    return {
      client,
      startSeconds,
      cpuSeconds: () => cpuSeconds(child.pid ?? 0),
      async stop() {
        await client.execute('quit');
        await client.close();
        await ended;
      },
    };
  } catch (error) {
    child.kill('SIGKILL');
    await ended;
    throw error;
  }
}

/** Of the threads that are there now; NaN where the system does not tell. */
function cpuSeconds(processId: number): number {
  try {
    const folder = `/proc/${processId}/task`;
    const nanoseconds = readdirSync(folder).map((thread) =>
      Number(readFileSync(join(folder, thread, 'schedstat'), 'utf8').split(' ')[0]),
    );
    return nanoseconds.reduce((sum, each) => sum + each, 0) / 1e9;
  } catch {
    return Number.NaN;
  }
}

function storageDaemon(context: BenchContext): string {
  const path = context.peer('qemu-storage-daemon');
  if (path === null) throw new Error('no qemu-storage-daemon');
  return path;
}

/**
 * Seconds from `start` to the conclusion of job `id`, which is completed as soon as it is READY;
 * throws when the job failed.
 */
export async function timeJob(
  client: QmpClient,
  id: string,
  start: () => Promise<unknown>,
): Promise<number> {
  const job = client.job(id);
  const begin = performance.now();
  await start();
  const state = await job.reach(['ready', 'concluded']);
  if (state === 'ready') await job.complete();
  await job.completed();
  const seconds = (performance.now() - begin) / 1000;
  await client.execute('job-dismiss', { id });
  return seconds;
}
