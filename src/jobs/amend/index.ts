// SPDX-License-Identifier: Apache-2.0
// `x-blockdev-amend`: changes what an open image says of itself, as a job, which stays in the list
// until it is dismissed.
//
// Other users are refused before the job begins, and let in again when its work is done, however
// it ends. While it works, nobody can drain or close the node.

import { BlockError, Permission } from '../../base/index.js';
import type { AmendOptions, Backend, Node } from '../../block/index.js';
import type { Job } from '../job.js';
import type { JobWork } from '../job-work.js';
import type { JobRegistry } from '../registry.js';
import { entered, jobUser, letGo } from '../start.js';
import type { AmendJobOptions } from './options.js';

/** Throws with no job left where the request cannot begin. */
export async function startAmend(registry: JobRegistry, args: AmendJobOptions): Promise<Job> {
  const node = registry.node(args['node-name'], 'node-name');
  const { driver } = args.options;
  await registry.driver(driver);
  if (node.driver.name !== driver) {
    const text = "x-blockdev-amend doesn't support changing the block driver";
    throw new BlockError('unsupported', text);
  }
  if (node.driverNode.amend === undefined) {
    throw new BlockError('unsupported', 'Driver does not support x-blockdev-amend');
  }
  const job = registry.create({
    id: args['job-id'],
    type: 'amend',
    blockJob: false,
    autoFinalize: true,
    autoDismiss: false,
  });
  const work = new AmendWork(registry, node, args);
  job.attachWork(work);
  try {
    await work.attach(job);
  } catch (error) {
    await work.clean();
    job.discard();
    throw error;
  }
  job.start();
  return job;
}

class AmendWork implements JobWork {
  readonly #registry: JobRegistry;
  readonly #node: Node;
  readonly #options: AmendOptions;
  readonly #force: boolean;
  readonly #cancel = new AbortController();
  #backend: Backend | null = null;
  #letOthersIn: (() => void) | null = null;

  constructor(registry: JobRegistry, node: Node, { options, force }: AmendJobOptions) {
    this.#registry = registry;
    this.#node = node;
    this.#options = amendOptions(options);
    this.#force = force === true;
  }

  async attach(job: Job): Promise<void> {
    this.#backend = await this.#registry.graph.attach(this.#node, jobUser(job, 'main node'), {
      taken: Permission.none,
      shared: Permission.all,
    });
    this.#letOthersIn = this.#node.driverNode.beginAmend?.() ?? null;
  }

  async run(job: Job): Promise<void> {
    const backend = this.#backend as Backend;
    job.setTotal(1);
    try {
      await entered(backend, () => {
        return backend.node.driverNode.amend?.(this.#options, {
          force: this.#force,
          isCancelled: () => job.cancelled,
          signal: this.#cancel.signal,
          resize: (size) => Promise.resolve(this.#node.truncate(size, { exact: false })),
        });
      });
    } finally {
      job.advance(1);
      await this.clean();
    }
  }

  cancelled(): void {
    this.#cancel.abort();
  }

  async clean(): Promise<void> {
    const [letOthersIn, backend] = [this.#letOthersIn, this.#backend];
    this.#letOthersIn = null;
    this.#backend = null;
    letOthersIn?.();
    await letGo([() => backend?.detach()]);
  }
}

/** By the names of `img amend -o`: members of `encrypt` are told apart by their prefix. */
function amendOptions(options: AmendJobOptions['options']): AmendOptions {
  const named: Record<string, unknown> = {};
  for (const [name, value] of Object.entries(options)) {
    if (name === 'driver') continue;
    if (name !== 'encrypt') named[name] = value;
    else Object.assign(named, encryptOptions(value as Readonly<Record<string, unknown>>));
  }
  return named;
}

function encryptOptions(
  members: Readonly<Record<string, unknown>>,
): Readonly<Record<`encrypt.${string}`, unknown>> {
  return Object.fromEntries(
    Object.entries(members).map(([name, value]) => [`encrypt.${name}`, value]),
  );
}
