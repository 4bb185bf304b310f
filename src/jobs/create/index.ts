// SPDX-License-Identifier: Apache-2.0
// `blockdev-create`: makes an empty image as a job, which stays in the list until it is dismissed.

import { BlockError, Permission } from '../../base/index.js';
import { UNNAMED_USER } from '../../block/index.js';
import type { Backend, Driver, Node, NodeOptions } from '../../block/index.js';
import { yieldToLoop } from '../../block/copy/index.js';
import type { Job } from '../job.js';
import type { JobWork } from '../job-work.js';
import type { JobRegistry } from '../registry.js';
import { letGo } from '../start.js';
import type { CreateOptions } from './options.js';

export async function startCreate(registry: JobRegistry, args: CreateOptions): Promise<Job> {
  const driver = await registry.driver(args.options.driver);
  if (driver.create === undefined) {
    throw new BlockError('unsupported', 'Driver does not support blockdev-create');
  }
  const job = registry.create({
    id: args['job-id'],
    type: 'create',
    blockJob: false,
    autoFinalize: true,
    autoDismiss: false,
  });
  job.attachWork(new CreateWork(registry, driver, args.options));
  job.start();
  return job;
}

class CreateWork implements JobWork {
  readonly #registry: JobRegistry;
  readonly #driver: Driver;
  readonly #options: CreateOptions['options'];
  readonly #backends: Backend[] = [];
  /** Of references that were asked for. */
  readonly #nodes = new Map<unknown, Node>();
  readonly #opened: Node[] = [];
  readonly #cancel = new AbortController();

  constructor(registry: JobRegistry, driver: Driver, options: CreateOptions['options']) {
    this.#registry = registry;
    this.#driver = driver;
    this.#options = options;
  }

  async run(job: Job): Promise<void> {
    job.setTotal(1);
    const { graph } = this.#registry;
    try {
      // A node that is not there is named before any mistake of the format.
      if (typeof this.#options['file'] === 'string') this.#registry.node(this.#options['file']);
      await this.#driver.create?.(
        {
          host: graph.host,
          node: (reference) => this.#node(reference),
          foresee: async (reference) => {
            await this.#node(reference);
          },
          secret: graph.secret,
          signal: this.#cancel.signal,
        },
        this.#options,
      );
    } catch (error) {
      // What has been written by then takes its time: who asked for it is answered first.
      if (error instanceof BlockError && error.kind === 'corrupt-image') await yieldToLoop();
      throw error;
    } finally {
      job.advance(1);
      await this.#letGo();
    }
  }

  cancelled(): void {
    this.#cancel.abort();
  }

  /** Write and resize are asked for, so that an image in use is refused and stays whole. */
  async #node(reference: unknown): Promise<Node> {
    const known = this.#nodes.get(reference);
    if (known !== undefined) return known;
    const { graph } = this.#registry;
    let node: Node;
    if (typeof reference === 'string') node = this.#registry.node(reference);
    else {
      node = await graph.open(reference as NodeOptions);
      this.#opened.push(node);
    }
    const backend = await graph.attach(node, UNNAMED_USER, {
      taken: Permission.write | Permission.resize,
      shared: Permission.all,
    });
    this.#backends.push(backend);
    this.#nodes.set(reference, backend.node);
    return backend.node;
  }

  async #letGo(): Promise<void> {
    const { graph } = this.#registry;
    await letGo([
      ...this.#backends.splice(0).map((backend) => () => backend.detach()),
      ...this.#opened.splice(0).map((node) => () => graph.close(node)),
    ]);
  }
}
