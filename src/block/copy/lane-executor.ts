// SPDX-License-Identifier: Apache-2.0
// Who runs lane tasks: threads on descriptors, or this thread on any host file.
//
// Batches wait in one queue per owner (job) and the owners take turns, so that one busy job does
// not starve another. At most `width` batches run at once. Files of a running batch are held, and
// files that it wrote to are told, whether it went well or not.

import { availableParallelism } from 'node:os';
import { COPY_LIMITS, must, SeededRandom } from '../../base/index.js';
import type { Random } from '../../base/index.js';
import { TASKS_PER_THREAD } from '../../host/index.js';
import type { Host, HostFile } from '../../host/index.js';
import { InProcessRunner } from './in-process-lanes.js';
import type { LaneResult, LaneTask } from './lane-task.js';
import { ThreadRunner } from './thread-lanes.js';

export interface LaneBatch {
  readonly task: LaneTask;
  /** Steps name files by their place in this list. */
  readonly files: readonly HostFile[];
}

export interface LaneExecutor {
  /** Batches that run at once. */
  readonly width: number;
  /** One result for each step; rejects only for a programmer's mistake. */
  run(batch: LaneBatch, owner: object): Promise<LaneResult[]>;
  /** Resolves when the threads are there; batches before that run without them. */
  warmUp(): Promise<void>;
  /** Waits for what runs and ends the threads. */
  close(): Promise<void>;
}

/** Runs one batch, now. */
export interface BatchRunner {
  run(batch: LaneBatch): Promise<LaneResult[]>;
  warmUp?(): Promise<void>;
  close(): Promise<void>;
}

interface Waiting {
  readonly batch: LaneBatch;
  readonly resolve: (results: LaneResult[]) => void;
  readonly reject: (error: unknown) => void;
}

/** Turns among owners, bounded width; with a Random the next owner is drawn from it. */
export class FairLanes implements LaneExecutor {
  readonly width: number;
  readonly #runner: BatchRunner;
  readonly #random: Random | null;
  readonly #queues = new Map<object, Waiting[]>();
  #running = 0;

  constructor(runner: BatchRunner, width: number, random: Random | null = null) {
    this.#runner = runner;
    this.width = width;
    this.#random = random;
  }

  run(batch: LaneBatch, owner: object): Promise<LaneResult[]> {
    return new Promise((resolve, reject) => {
      const queue = this.#queues.get(owner) ?? [];
      queue.push({ batch, resolve, reject });
      this.#queues.set(owner, queue);
      this.#dispatch();
    });
  }

  async warmUp(): Promise<void> {
    await this.#runner.warmUp?.();
  }

  close(): Promise<void> {
    return this.#runner.close();
  }

  #dispatch(): void {
    while (this.#running < this.width && this.#queues.size > 0) {
      this.#running += 1;
      void this.#runOne(this.#next());
    }
  }

  #next(): Waiting {
    const owners = [...this.#queues.keys()];
    const owner = must(owners[this.#random?.below(owners.length) ?? 0], 'an owner waits');
    const queue = must(this.#queues.get(owner), 'the owner has a queue');
    const waiting = must(queue.shift(), 'a queue in the list is not empty');
    // Back to the end of the line, which is what makes the turns fair.
    this.#queues.delete(owner);
    if (queue.length > 0) this.#queues.set(owner, queue);
    return waiting;
  }

  async #runOne({ batch, resolve, reject }: Waiting): Promise<void> {
    const held: HostFile[] = [];
    try {
      for (const file of batch.files) {
        file.hold();
        held.push(file);
      }
      resolve(await this.#runner.run(batch));
    } catch (error) {
      reject(error);
    } finally {
      for (const file of writtenFiles(batch)) if (held.includes(file)) file.noteForeignWrite();
      for (const file of held) file.release();
      this.#running -= 1;
      this.#dispatch();
    }
  }
}

function writtenFiles(batch: LaneBatch): Set<HostFile> {
  const written = new Set<HostFile>();
  for (const { target } of batch.task.steps) {
    if (target.kind !== 'file') continue;
    written.add(must(batch.files[target.file], 'a step names a file of the batch'));
  }
  return written;
}

/** Lanes on this thread, for any host, in an order drawn from `random`. */
export function inProcessLanes(random: Random, width = 2): LaneExecutor {
  return new FairLanes(new InProcessRunner(), width, random);
}

/** Lanes for the host: threads where its files have descriptors, this thread otherwise. */
export function createLanes(host: Host, threads?: number): LaneExecutor {
  if (host.name === 'simulated') return inProcessLanes(new SeededRandom(host.random.next()));
  const count = Math.min(threads ?? availableParallelism(), COPY_LIMITS.laneMax);
  if (count < 1) return inProcessLanes(host.random, 1);
  return new FairLanes(ThreadRunner.start(count), count * TASKS_PER_THREAD);
}
