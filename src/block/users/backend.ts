// SPDX-License-Identifier: Apache-2.0
// Backend: the edge of a user outside the graph (job, export, guest device, command line).
//
// This is the outer edge where drain stops requests: while quiesced, new requests wait in order of
// arrival, and those that come before all of them have begun queue behind them; requests already
// inside go on and are counted. An inline request only looks at two counters. Range is checked here
// against the node's size: outside users never grow a node by writing.

import {
  assert,
  BlockError,
  Permission,
  settle,
  type Eventually,
  type PermissionPair,
} from '../../base/index.js';
import type { BlockNode } from '../block-node.js';
import { Edge, type Child, type EdgeParent, type EdgeUser } from '../child.js';
import type { Backend } from '../graph-api.js';
import {
  discardRequest,
  readRequest,
  writeRequest,
  zeroRequest,
  type Request,
} from '../request.js';

/** What a backend needs of its graph. */
export interface BackendOwner {
  changePermissions(edge: Edge, permissions: PermissionPair): void;
  detachBackend(backend: GraphBackend): Promise<void>;
}

export interface BackendFacts {
  readonly owner: BackendOwner;
  readonly node: BlockNode;
  readonly user: EdgeUser;
  readonly permissions: PermissionPair;
}

interface QuiesceListener {
  readonly callback: (quiesced: boolean) => void;
  /** What it was told last. */
  quiesced: boolean;
}

export class GraphBackend implements Backend {
  readonly description: string;
  readonly edge: Edge;
  readonly #owner: BackendOwner;
  #quiesced = 0;
  #running = 0;
  #detaching: Promise<void> | null = null;
  /** Begins of what came while it was quiesced, in order. */
  readonly #held: (() => void)[] = [];
  #idleWaiters: (() => void)[] = [];
  readonly #listeners: QuiesceListener[] = [];
  #atRest: (() => boolean) | null = null;

  constructor(facts: BackendFacts) {
    this.description = facts.user.description;
    this.#owner = facts.owner;
    this.edge = new Edge({
      name: facts.user.link ?? 'root',
      role: 0,
      parent: this.#asParent(facts.user),
      node: facts.node,
      permissions: facts.permissions,
    });
  }

  #asParent({ description, job, blocks }: EdgeUser): EdgeParent {
    return {
      description,
      node: null,
      job,
      blocks,
      quiesce: () => this.quiesce(),
      busy: () => this.busy(),
      atRest: () => this.#atRest?.() ?? true,
      idle: () => this.idle(),
      unquiesce: () => this.unquiesce(),
    };
  }

  get child(): Child {
    return this.edge;
  }

  get node(): BlockNode {
    return this.edge.node;
  }

  read(offset: number, buffer: Uint8Array, flags = 0): Eventually<void> {
    return this.#submit(readRequest(offset, buffer, flags));
  }

  write(offset: number, buffer: Uint8Array, flags = 0): Eventually<void> {
    return this.#submit(writeRequest(offset, buffer, flags));
  }

  writeZeroes(offset: number, length: number, flags = 0): Eventually<void> {
    return this.#submit(zeroRequest(offset, length, flags));
  }

  discard(offset: number, length: number): Eventually<void> {
    return this.#submit(discardRequest(offset, length));
  }

  flush(): Eventually<void> {
    return settle(this.enter(), (leave) => {
      let result: Eventually<void>;
      try {
        result = this.edge.node.flush();
      } catch (error) {
        leave();
        throw error;
      }
      if (result instanceof Promise) return result.finally(leave);
      leave();
      return undefined;
    });
  }

  setPermissions(permissions: PermissionPair): void {
    this.#owner.changePermissions(this.edge, permissions);
  }

  onQuiesce(callback: (quiesced: boolean) => void, atRest?: () => boolean): void {
    this.#atRest = atRest ?? this.#atRest;
    this.#listeners.push({ callback, quiesced: false });
    this.#tellListeners();
  }

  enter(): Eventually<() => void> {
    this.#checkAttached();
    return this.#mustWait ? this.#hold(() => this.#enterNow()) : this.#enterNow();
  }

  detach(): Promise<void> {
    this.#detaching ??= this.#detachWhenIdle();
    return this.#detaching;
  }

  quiesce(): void {
    this.#quiesced += 1;
    this.#tellListeners();
  }

  unquiesce(): void {
    assert(this.#quiesced > 0, `backend '${this.description}' is not quiesced`);
    this.#quiesced -= 1;
    this.#tellListeners();
    while (this.#quiesced === 0) {
      const begin = this.#held.shift();
      if (begin === undefined) return;
      begin();
    }
  }

  busy(): boolean {
    return this.#running > 0;
  }

  /** Finishes when no request runs through the edge. */
  idle(): Eventually<void> {
    if (this.#running === 0) return undefined;
    return new Promise<void>((resolve) => this.#idleWaiters.push(resolve));
  }

  get #mustWait(): boolean {
    return this.#quiesced !== 0 || this.#held.length !== 0;
  }

  #hold<T>(begin: () => Eventually<T>): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      this.#held.push(() => {
        try {
          resolve(begin());
        } catch (error) {
          reject(error as Error);
        }
      });
    });
  }

  /** Each hears of a change once, also when another of them begins or ends a section. */
  #tellListeners(): void {
    for (const listener of this.#listeners) {
      const quiesced = this.#quiesced > 0;
      if (listener.quiesced === quiesced) continue;
      listener.quiesced = quiesced;
      listener.callback(quiesced);
    }
  }

  #enterNow(): () => void {
    this.#checkAttached();
    this.#running += 1;
    let left = false;
    return () => {
      assert(!left, `backend '${this.description}' left twice`);
      left = true;
      this.#leave();
    };
  }

  #submit(request: Request): Eventually<void> {
    this.#checkAttached();
    return this.#mustWait ? this.#hold(() => this.#start(request)) : this.#start(request);
  }

  #start(request: Request): Eventually<void> {
    this.#checkAttached();
    const node = this.edge.node;
    this.#checkRequest(request, node);
    this.#running += 1;
    let result: Eventually<void>;
    try {
      result = dispatch(node, request);
    } catch (error) {
      this.#leave();
      throw error;
    }
    if (result instanceof Promise) return this.#leaveAfter(result);
    this.#leave();
    return undefined;
  }

  async #leaveAfter(result: Promise<void>): Promise<void> {
    try {
      await result;
    } finally {
      this.#leave();
    }
  }

  async #detachWhenIdle(): Promise<void> {
    if (this.busy()) await this.idle();
    await this.#owner.detachBackend(this);
  }

  #leave(): void {
    this.#running -= 1;
    if (this.#running === 0 && this.#idleWaiters.length > 0) {
      const waiters = this.#idleWaiters;
      this.#idleWaiters = [];
      for (const wake of waiters) wake();
    }
  }

  #checkAttached(): void {
    if (this.#detaching === null) return;
    throw new BlockError('closed', `'${this.description}' is not attached to a node any more`);
  }

  #checkRequest(request: Request, node: BlockNode): void {
    if (request.kind !== 'read') {
      if (node.readOnly) {
        throw new BlockError('read-only', `Node '${node.name}' is read only`, {
          node: node.name,
          offset: request.offset,
          errno: 'EPERM',
        });
      }
      const may = Permission.write | Permission.writeUnchanged;
      assert(
        (this.edge.permissions.taken & may) !== 0,
        `'${this.description}' writes without the permission`,
      );
    }
    if (request.offset < 0 || request.offset + request.length > node.length) {
      throw new BlockError(
        'out-of-range',
        `${request.kind} of ${request.length} bytes at ${request.offset} goes beyond the end of ` +
          `node '${node.name}' (${node.length} bytes)`,
        { node: node.name, offset: request.offset, operation: request.kind },
      );
    }
  }
}

function dispatch(node: BlockNode, request: Request): Eventually<void> {
  switch (request.kind) {
    case 'read':
      return node.read(request);
    case 'write':
      return node.write(request);
    case 'write-zeroes':
      return node.writeZeroes(request);
    case 'discard':
      return node.discard(request);
  }
}
