// SPDX-License-Identifier: Apache-2.0
// Starting a job, in the order that the reference's events show: its filter is in place, the job is
// created, its speed is set, its edges are attached; a failure from there on throws the job away
// (JSC null) before the error is reported.

import { BlockError, NAME_LIMITS } from '../base/index.js';
import type { Eventually } from '../base/index.js';
import { jobBlock } from '../block/index.js';
import type { Backend, Driver, EdgeUser, InsertFilterRequest, Node } from '../block/index.js';
import type { Job } from './job.js';
import type { JobSetup, JobWork } from './job-work.js';
import type { JobRegistry } from './registry.js';

export interface StartableWork extends JobWork {
  /** Takes the job's edges. */
  attach(job: Job): Promise<void>;
  clean(): Promise<void>;
}

export interface StartOptions {
  readonly setup: JobSetup;
  readonly speed: number | bigint;
  /** The command holds its nodes drained while it starts the job, which shows as a pause. */
  readonly startsDrained?: boolean;
}

/** A job that is created and holds its nodes, and has not begun. One of the two follows, once. */
export interface PreparedJob {
  readonly job: Job;
  /** Resolves when the job runs; where its nodes are drained, when it rests. */
  start(): Promise<void>;
  /** Throws the job away, with those of its transaction that have not begun. */
  abort(): Promise<void>;
  /** A job that has nothing to do is through before the answer of the command that started it. */
  throughIfEmpty(): Promise<void>;
}

export async function prepareWork(
  registry: JobRegistry,
  work: StartableWork,
  options: StartOptions,
): Promise<PreparedJob> {
  let job: Job;
  try {
    job = registry.create(options.setup);
  } catch (error) {
    await abandon(work);
    throw error;
  }
  job.attachWork(work);
  try {
    job.setSpeed(options.speed);
    await work.attach(job);
  } catch (error) {
    try {
      await abandon(work);
    } finally {
      if (!job.cancelled) job.discard();
    }
    throw error;
  }
  // Someone cancelled it between its creation and here: what attach() took is given back.
  if (job.cancelled) await abandon(work);
  return {
    job,
    start: () => start(job, options.startsDrained === true),
    async abort() {
      if (job.status !== 'created') return;
      await job.cancel();
      await job.ended;
    },
    async throughIfEmpty() {
      if (job.info()['total-progress'] === 0) await job.restsOrEnds();
    },
  };
}

async function abandon(work: StartableWork): Promise<void> {
  await letGo([() => work.clean(), () => work.dismiss?.()]);
}

async function start(job: Job, startsDrained: boolean): Promise<void> {
  if (job.status !== 'created') return;
  if (startsDrained) job.quiesce();
  job.start();
  if (!startsDrained) return;
  await job.restsOrEnds();
  job.unquiesce();
}

export async function startWork(
  registry: JobRegistry,
  work: StartableWork,
  options: StartOptions,
): Promise<Job> {
  const prepared = await prepareWork(registry, work, options);
  await prepared.start();
  return prepared.job;
}

/** The job as a user of one of its nodes, which it keeps from all others; `link` names the edge. */
export function jobUser(job: Job, link: string): EdgeUser {
  return {
    description: `${job.type} job '${job.id}'`,
    link,
    job: job.id,
    blocks: jobBlock(job.type),
  };
}

/** A drained section around a node of the job pauses it. */
export function pauseWithNode(job: Job, backend: Backend): void {
  const tell = (quiesced: boolean): void => {
    if (quiesced) job.quiesce();
    else job.unquiesce();
  };
  backend.onQuiesce(tell, () => job.atRest);
}

const NODE_NAME = /^[A-Za-z][A-Za-z0-9\-._]*$/;

/** Checks a name for the job's filter before anything is changed. */
export function requireFilterName(
  registry: JobRegistry,
  name: string | undefined,
  prefix = 'Could not create node: ',
): void {
  if (name === undefined) return;
  if (!NODE_NAME.test(name) || name.length > NAME_LIMITS.nodeNameBytes) {
    throw new BlockError('invalid-option', `${prefix}Invalid node-name: '${name}'`);
  }
  if (registry.graph.find(name) !== null) {
    throw new BlockError(
      'exists',
      `${prefix}Duplicate nodes with node-name='${name}'`,
    );
  }
}

export async function insertJobFilter(
  registry: JobRegistry,
  filter: Omit<InsertFilterRequest, 'driver'> & { readonly driver: string },
): Promise<Node> {
  const driver = await registry.driver(filter.driver);
  return registry.graph.insertFilter({ ...filter, driver: driver as Driver<never> });
}

/** Does work on the backend's node that no drained section may come in between. */
export async function entered<T>(backend: Backend, work: () => Eventually<T>): Promise<T> {
  const leave = await backend.enter();
  try {
    return await work();
  } finally {
    leave();
  }
}

/** Takes all the edges away in this turn, whatever their nodes' files need to be closed. */
export async function detachAll(backends: readonly Backend[]): Promise<void> {
  const detaching = backends.map((backend) => backend.detach());
  await letGo(detaching.map((each) => () => each));
}

/** Runs every step in turn, also when one fails; throws the first failure. */
export async function letGo(steps: readonly (() => Promise<void> | undefined)[]): Promise<void> {
  const failures: unknown[] = [];
  for (const step of steps) {
    try {
      await step();
    } catch (error) {
      failures.push(error);
    }
  }
  if (failures.length > 0) throw failures[0];
}
