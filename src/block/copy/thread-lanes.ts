// SPDX-License-Identifier: Apache-2.0
// Runs lane tasks on threads: plain and encrypted copies in the addon, on the host's own threads;
// everything else, and without the addon all, on worker threads. A batch with a file that has no
// descriptor, and every batch once threads cannot be started or have died, runs on this thread
// instead: slower, with the same results.

import { createWorkerPool, nativeAddon } from '../../host/index.js';
import type { NativeAddon, WorkerPool } from '../../host/index.js';
import { InProcessRunner } from './in-process-lanes.js';
import type { BatchRunner, LaneBatch } from './lane-executor.js';
import type { LanePart, LaneResult } from './lane-task.js';
import type { LaneMessage } from './lane-worker.js';
import { isPlain, runNatively } from './native-lanes.js';

/**
 * Plain batches after which threads are worth their start (1 GiB): until then this thread, whose
 * transfers run in the host's pool anyway, is as fast. Work for the processor wants them at once.
 */
const WARM_UP_AFTER = 256;

/** Moving fewer plain bytes costs less than telling a thread of them. */
const SMALL_BYTES = 65_536;

export class ThreadRunner implements BatchRunner {
  readonly #pool: WorkerPool;
  readonly #inProcess = new InProcessRunner();
  #batches = 0;
  #ready = false;
  #warmUp: Promise<void> | null = null;

  readonly #smallBytes: number;
  readonly #addon: NativeAddon | null;
  /** What runs in the addon now. */
  readonly #native = new Set<Promise<LaneResult[]>>();

  /** Plain batches of fewer than `smallBytes` bytes run on this thread. */
  constructor(pool: WorkerPool, smallBytes = SMALL_BYTES, addon = nativeAddon()) {
    this.#pool = pool;
    this.#smallBytes = smallBytes;
    this.#addon = addon;
  }

  static start(
    threads: number,
    smallBytes = SMALL_BYTES,
    addon = nativeAddon(),
  ): ThreadRunner {
    const pool = createWorkerPool({ script: workerScript(), threads });
    return new ThreadRunner(pool, smallBytes, addon);
  }

  async run(batch: LaneBatch): Promise<LaneResult[]> {
    const descriptors = descriptorsOf(batch);
    if (descriptors === null || plainBytes(batch) < this.#smallBytes) {
      return this.#inProcess.run(batch);
    }
    if (this.#addon !== null && isPlain(batch.task, this.#addon)) {
      return this.#runNatively(this.#addon, { task: batch.task, descriptors });
    }
    this.#batches += 1;
    if (this.#batches > WARM_UP_AFTER || isHeavy(batch) || isEncrypted(batch)) void this.warmUp();
    if (!this.#ready) return this.#inProcess.run(batch);
    const message: LaneMessage = { task: batch.task, descriptors };
    try {
      return await this.#pool.run<LaneResult[]>(message);
    } catch {
      // A thread ended in the middle. Every step may be done again; from here on it is done here.
      this.#ready = false;
      return this.#inProcess.run(batch);
    }
  }

  async close(): Promise<void> {
    await Promise.allSettled(this.#native);
    await this.#pool.close();
  }

  async #runNatively(addon: NativeAddon, message: LaneMessage): Promise<LaneResult[]> {
    const running = runNatively(addon, message);
    this.#native.add(running);
    try {
      return await running;
    } finally {
      this.#native.delete(running);
    }
  }

  /** Starting takes longer than many batches: nobody has to wait for it. */
  warmUp(): Promise<void> {
    this.#warmUp ??= this.#start();
    return this.#warmUp;
  }

  async #start(): Promise<void> {
    const probe: LaneMessage = {
      task: { steps: [], slab: null, cancel: new Int32Array(new SharedArrayBuffer(4)) },
      descriptors: [],
    };
    try {
      await this.#pool.run<LaneResult[]>(probe);
      this.#ready = true;
    } catch {
      // No threads here: this thread goes on doing the work.
      this.#ready = false;
    }
  }
}

/** Bytes of the batch; Infinity when there is work for the processor. */
function plainBytes(batch: LaneBatch): number {
  let bytes = 0;
  for (const { length } of batch.task.steps) bytes += length;
  return isHeavy(batch) ? Infinity : bytes;
}

/** Deflates or inflates. */
function isHeavy(batch: LaneBatch): boolean {
  return batch.task.steps.some(({ deflate, parts, target }) => {
    const others = target.kind === 'compare' ? target.parts : [];
    return deflate || [parts, others].some((each) => each.some(isCompressed));
  });
}

function isEncrypted({ task }: LaneBatch): boolean {
  return task.ciphers !== undefined && task.ciphers.length > 0;
}

function isCompressed(part: LanePart): boolean {
  return part.kind === 'compressed';
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
