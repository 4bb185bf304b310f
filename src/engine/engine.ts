// SPDX-License-Identifier: Apache-2.0
// The running whole: one graph, its jobs and its events, and how it ends.
//
// Commands run one at a time, whichever client sent them (exclusive()), so each sees the graph as
// the one before left it. The end: jobs are cancelled, then nodes closed, each step once.

import { BlockError, Turns } from '../base/index.js';
import { requireOperation } from '../block/index.js';
import type { Graph, Node, NodeOptions } from '../block/index.js';
import type { JobRegistry } from '../jobs/index.js';
import { ACCEPT_ALL } from '../schema/index.js';
import type { CompatPolicy } from '../schema/index.js';
import { ChardevRegistry } from './chardev/index.js';
import type { EventBus } from './events.js';
import type { ObjectRegistry } from './objects.js';
import { WriteThresholds } from './write-threshold.js';

/** Where the reference does something doubtful, off unless asked for. */
export interface ReferenceHabits {
  /** change-backing-file writes the overlay's own format as that of its backing file. */
  readonly ownBackingFormat: boolean;
}

export interface EngineParts {
  readonly graph: Graph;
  readonly jobs: JobRegistry;
  readonly events: EventBus;
  readonly habits?: Partial<ReferenceHabits>;
  readonly compat?: Partial<CompatPolicy>;
  readonly objects: ObjectRegistry;
  /** Called last, with everything closed: lane workers and the like. */
  readonly release: () => Promise<void>;
}

export class Engine implements AsyncDisposable {
  readonly graph: Graph;
  readonly jobs: JobRegistry;
  readonly events: EventBus;
  readonly writeThresholds: WriteThresholds;
  readonly habits: ReferenceHabits;
  /** What clients may use of what is deprecated or unstable. */
  readonly compat: CompatPolicy;
  readonly objects: ObjectRegistry;
  readonly chardevs: ChardevRegistry;
  /** Resolves when a client asked the program to end; who runs the engine then calls close(). */
  readonly quitRequested: Promise<void>;
  readonly #monitorNodes = new Set<Node>();
  readonly #release: () => Promise<void>;
  #requestQuit: (() => void) | null = null;
  #closing: Promise<void> | null = null;
  readonly #turns = new Turns();

  constructor(parts: EngineParts) {
    this.graph = parts.graph;
    this.jobs = parts.jobs;
    this.events = parts.events;
    this.habits = { ownBackingFormat: false, ...parts.habits };
    this.compat = { ...ACCEPT_ALL, ...parts.compat };
    this.writeThresholds = new WriteThresholds(parts.events);
    this.objects = parts.objects;
    this.#release = parts.release;
    this.quitRequested = new Promise((resolve) => {
      this.#requestQuit = resolve;
    });
    this.chardevs = new ChardevRegistry(parts.graph.clock, this.quitRequested);
    this.objects.addBranch('chardevs', () =>
      [...this.chardevs.entries].map(([id, { kind, properties }]) => {
        return [id, { type: `chardev-${kind}`, properties, inUse: true }];
      }),
    );
  }

  /** `blockdev-add`, and --blockdev: opens a node that lives until deleteNode(). */
  async addNode(options: NodeOptions): Promise<Node> {
    this.requireUp();
    if (options['node-name'] === undefined) {
      throw new BlockError('invalid-option', "'node-name' must be specified for the root node");
    }
    const node = await this.graph.open(options);
    this.#monitorNodes.add(node);
    return node;
  }

  /** `blockdev-del`: closes a node of addNode() that nobody uses. */
  async deleteNode(name: string): Promise<void> {
    const node = this.graph.find(name);
    if (node === null) {
      throw new BlockError('not-found', `Failed to find node with node-name='${name}'`);
    }
    if (hasBackend(node)) throw new BlockError('busy', `Node ${name} is in use`);
    requireOperation(node, 'drive-del');
    if (!this.#monitorNodes.has(node)) {
      throw new BlockError('busy', `Node ${name} is not owned by the monitor`);
    }
    if (node.parents.size > 0) throw new BlockError('busy', `Block device ${name} is in use`);
    this.#monitorNodes.delete(node);
    await this.graph.close(node);
  }

  /** `x-blockdev-set-iothread`: null stands for the main thread. */
  async placeNode(name: string, thread: string | null, force: boolean): Promise<void> {
    const node = this.graph.find(name);
    if (node === null) {
      throw new BlockError('not-found', `Failed to find node with node-name='${name}'`);
    }
    if (!force && hasBackend(node)) {
      const hint = 'use force=true to override this check';
      const text = `Node ${name} is associated with a BlockBackend and could be in use (${hint})`;
      throw new BlockError('busy', text);
    }
    const target = thread === null ? null : this.objects.iothread(thread);
    if (thread !== null && target === null) {
      throw new BlockError('not-found', `Cannot find iothread ${thread}`);
    }
    await this.objects.placement.move(this.graph, node, target);
  }

  /** Of keys, for images to be opened and for jobs at work: what waits for them goes on. */
  giveUpDerivations(): void {
    this.graph.giveUpDerivations();
    for (const job of this.jobs.list()) job.cancelAtWork();
  }

  requestQuit(): void {
    this.giveUpDerivations();
    this.#requestQuit?.();
  }

  /** Runs `work` after all work given before has ended. */
  exclusive<T>(work: () => Promise<T>): Promise<T> {
    return this.#turns.run(work);
  }

  /** Ends everything once the work given before has ended; idempotent. */
  close(): Promise<void> {
    this.giveUpDerivations();
    return this.exclusive(() => this.shutDown());
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /**
   * Cancels all jobs and closes all nodes; idempotent. For close() and for work that runs
   * exclusively already (the quit command, whose reply follows the last event).
   */
  shutDown(): Promise<void> {
    this.#closing ??= this.#shutDown();
    return this.#closing;
  }

  get closing(): boolean {
    return this.#closing !== null;
  }

  /** Throws kind `closed` once the end has begun: what is opened then would stay open. */
  requireUp(): void {
    if (this.closing) throw new BlockError('closed', 'The engine is being shut down');
  }

  async #shutDown(): Promise<void> {
    try {
      this.objects.letEverythingThrough();
      await this.jobs.cancelAll();
      for (const job of [...this.jobs.list()].reverse()) {
        if (job.status === 'concluded') await job.dismiss();
      }
      await this.graph.closeAll();
      await this.chardevs.closeUnused();
    } finally {
      await this.#release();
      this.requestQuit();
    }
  }
}

/** Whether a user that is neither a node nor a job does its requests through the node. */
function hasBackend(node: Node): boolean {
  for (const { parent } of node.parents) {
    if (parent.node === null && parent.job === undefined) return true;
  }
  return false;
}
