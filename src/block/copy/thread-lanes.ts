// SPDX-License-Identifier: Apache-2.0
// Runs lane tasks on worker threads. A batch with a file that has no descriptor, and every batch
// once threads cannot be started, runs on this thread instead: slower, with the same results.

import { createWorkerPool } from '../../host/index.js';
import type { WorkerPool } from '../../host/index.js';
import { InProcessRunner } from './in-process-lanes.js';
import type { BatchRunner, LaneBatch } from './lane-executor.js';
import type { LaneResult } from './lane-task.js';
import type { LaneMessage } from './lane-worker.js';

export class ThreadRunner implements BatchRunner {
  readonly #pool: WorkerPool;
  readonly #inProcess = new InProcessRunner();
  #threadsWork: boolean | null = null;

  constructor(threads: number) {
    this.#pool = createWorkerPool({ script: workerScript(), threads });
  }

  async run(batch: LaneBatch): Promise<LaneResult[]> {
    const descriptors = descriptorsOf(batch);
    if (descriptors === null || this.#threadsWork === false) return this.#inProcess.run(batch);
    const message: LaneMessage = { task: batch.task, descriptors };
    if (this.#threadsWork === true) return this.#pool.run<LaneResult[]>(message);
    return this.#runFirst(message, batch);
  }

  close(): Promise<void> {
    return this.#pool.close();
  }

  /** Until a batch has come back, a failure may mean that threads cannot be had here. */
  async #runFirst(message: LaneMessage, batch: LaneBatch): Promise<LaneResult[]> {
    try {
      const results = await this.#pool.run<LaneResult[]>(message);
      this.#threadsWork = true;
      return results;
    } catch {
      // Writing the same bytes to the same reserved ranges again is harmless.
      this.#threadsWork = false;
      return this.#inProcess.run(batch);
    }
  }
}

function descriptorsOf(batch: LaneBatch): number[] | null {
  const descriptors: number[] = [];
  for (const { descriptor } of batch.files) {
    if (descriptor === null) return null;
    descriptors.push(descriptor);
  }
  return descriptors;
}

function workerScript(): URL {
  const script = new URL('./lane-worker.js', import.meta.url);
  if (import.meta.url.endsWith('.ts')) script.pathname = script.pathname.replace(/\.js$/, '.ts');
  return script;
}
