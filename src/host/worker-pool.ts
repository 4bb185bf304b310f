// SPDX-License-Identifier: Apache-2.0
// Worker threads for bulk work: a thin wrapper over piscina, which is loaded at the first use.
//
// A task is one bounded batch. It is never given an AbortSignal, because aborting ends its thread;
// cancelling is a flag that the task reads. Idle threads do not keep the process alive.

import { availableParallelism } from 'node:os';
import { fileURLToPath } from 'node:url';
import type { Piscina } from 'piscina';

import { COPY_LIMITS } from '../base/index.js';

export interface WorkerPoolOptions {
  /** The module that threads load; below src/ it stands for its built twin below dist/. */
  readonly script: URL;
  /** 1 to COPY_LIMITS.laneMax; the number of processors (at most laneMax) unless given. */
  readonly threads?: number;
}

export interface WorkerPool {
  readonly threads: number;
  /**
   * Runs the script's default export, or its export `name`, on a thread. What it throws arrives as
   * an Error with the message alone; errno and the like must be part of the result.
   */
  run<R>(task: unknown, options?: { readonly name?: string }): Promise<R>;
  /** Resolves when every thread has loaded the script, after its export `warmUp` if it has one. */
  warmUp(): Promise<void>;
  /** Waits for running tasks, then ends the threads. */
  close(): Promise<void>;
}

/** Tasks handed to a thread at once; they run one after the other as long as they block. */
export const TASKS_PER_THREAD = 2;

export function createWorkerPool(options: WorkerPoolOptions): WorkerPool {
  const wanted = options.threads ?? availableParallelism();
  const threads = Math.max(1, Math.min(wanted, COPY_LIMITS.laneMax));
  const filename = fileURLToPath(builtScript(options.script));
  let started: Promise<Piscina> | null = null;
  const start = (): Promise<Piscina> => (started ??= startThreads(filename, threads));
  return {
    threads,
    async run<R>(task: unknown, { name = 'default' }: { readonly name?: string } = {}) {
      const piscina = await start();
      return (await piscina.run(task, { name })) as R;
    },
    async warmUp() {
      await loadAll(await start(), threads);
    },
    async close() {
      if (started === null) return;
      const piscina = await started;
      // Ending a thread that is still loading its modules aborts the whole process.
      await loadAll(piscina, threads);
      await piscina.close();
    },
  };
}

/** Resolves when every thread has loaded the script, or cannot. */
async function loadAll(piscina: Piscina, threads: number): Promise<void> {
  const tasks = Array.from({ length: threads * TASKS_PER_THREAD });
  await Promise.allSettled(tasks.map(() => piscina.run(null, { name: 'warmUp' })));
}

async function startThreads(filename: string, threads: number): Promise<Piscina> {
  const { Piscina: PiscinaPool } = await import('piscina');
  const piscina = new PiscinaPool({
    filename,
    minThreads: threads,
    maxThreads: threads,
    recordTiming: false,
    // A thread finds its next task at once, without waiting for the main thread's answer.
    concurrentTasksPerWorker: TASKS_PER_THREAD,
  });
  // The failure of a thread rejects the tasks that it was given; that is where it is handled.
  piscina.on('error', () => undefined);
  return piscina;
}

/** Threads load JavaScript: a source file run directly is mapped to its build. */
function builtScript(script: URL): URL {
  if (!script.pathname.endsWith('.ts')) return script;
  const at = script.pathname.lastIndexOf('/src/');
  const built = new URL(script.href);
  built.pathname = `${script.pathname.slice(0, at)}/dist/${script.pathname.slice(at + 5, -3)}.js`;
  return built;
}
