// SPDX-License-Identifier: Apache-2.0
// The graph: all nodes by name, their edges, and the operations on it.
//
// Edges are only ever changed here and in graph-changes.ts, synchronously, together with the
// permissions that follow; a refused change leaves everything as it was. A node is closed when its
// last parent and its last reference are gone; closing takes its own children with it.

import {
  assert,
  BlockError,
  type Clock,
  Turns,
  type PermissionPair,
  type Random,
} from '../base/index.js';
import type { Host } from '../host/index.js';
import { GraphBackend, type BackendOwner } from './users/backend.js';
import { BlockNode } from './block-node.js';
import { Edge, type EdgeUser } from './child.js';
import { DrainControl } from './drain.js';
import type { CorruptionReport } from './driver.js';
import {
  freezeChain,
  insertFilter,
  placeLast,
  refuseClosing,
  setBacking,
  settled,
} from './graph-changes.js';
import type {
  Backend,
  DrainedSection,
  Graph,
  InsertFilterRequest,
  NodeOptions,
  OpenPolicy,
  PreparedOverlay,
  ReplaceRequest,
} from './graph-api.js';
import type { Node } from './node.js';
import { addListedChild, removeListedChild } from './child-lists.js';
import { NodeNames } from './node-names.js';
import { openByName } from './open/by-name.js';
import { openImage } from './open/image.js';
import { rootContext } from './open/make-node.js';
import { openNode } from './open/open.js';
import { appendOverlay, sealBelow } from './reopen/overlay.js';
import { LeavingFilters } from './reopen/leaving-filters.js';
import { NO_PERMISSIONS, refreshPermissions } from './permissions.js';
import type { DriverRegistry } from './registry.js';
import { noSecrets, type SecretSource } from './open/secret.js';
import { changeOptions, reopenNodes, setReadOnly } from './reopen/reopen.js';
import { replaceNode } from './reopen/replace-node.js';
import type { ThrottleGroup } from './throttle/index.js';

export interface GraphParts {
  /** Called when a driver finds its image corrupt. */
  readonly onCorruption?: (node: Node, report: CorruptionReport) => void;
  /** Called with what drivers warn of when they open an image. */
  readonly onWarning?: (text: string) => void;
  /** Called with each line that a check says which nobody asked for: a repair at the open. */
  readonly onFinding?: (line: string) => void;
  /** Called with the events of drivers. */
  readonly onEvent?: (event: string, data: Readonly<Record<string, unknown>>) => void;
  /** Finds a throttle-group object by its id. */
  readonly throttleGroup?: (name: string) => ThrottleGroup | null;
  readonly secret?: SecretSource;
  readonly host: Host;
  readonly registry: DriverRegistry;
  readonly clock: Clock;
  readonly random: Random;
}

export function createGraph(parts: GraphParts): Graph {
  return new BlockGraph(parts);
}

export interface EdgeRequest {
  readonly parent: BlockNode;
  readonly name: string;
  readonly role: number;
  readonly child: BlockNode;
}

/** The class behind a node; nodes of another graph are a programmer's mistake. */
export function asBlockNode(node: Node): BlockNode {
  assert(node instanceof BlockNode, 'a node of this block layer');
  return node;
}

export class BlockGraph implements Graph, BackendOwner {
  readonly host: Host;
  readonly clock: Clock;
  readonly random: Random;
  readonly registry: DriverRegistry;
  readonly names: NodeNames;
  readonly onCorruption: NonNullable<GraphParts['onCorruption']>;
  readonly onWarning: NonNullable<GraphParts['onWarning']>;
  readonly onFinding: NonNullable<GraphParts['onFinding']>;
  readonly throttleGroup: NonNullable<GraphParts['throttleGroup']>;
  readonly secret: SecretSource;
  readonly onEvent: NonNullable<GraphParts['onEvent']>;
  readonly drains = new DrainControl();
  readonly #ending = new AbortController();
  readonly #nodes = new Map<string, BlockNode>();
  /**
   * One change at a time: what it has planned stays true while it waits, but for users that come
   * and go. Whoever asks for one holds up no request, so that the one before can drain.
   */
  readonly #changes = new Turns();
  readonly #leaving = new LeavingFilters(this, this.#changes);
  #lastSequence = 0;

  constructor(parts: GraphParts) {
    this.host = parts.host;
    this.clock = parts.clock;
    this.random = parts.random;
    this.registry = parts.registry;
    this.names = new NodeNames(parts.random);
    this.onCorruption = parts.onCorruption ?? (() => undefined);
    this.onWarning = parts.onWarning ?? (() => undefined);
    this.onFinding = parts.onFinding ?? (() => undefined);
    this.throttleGroup = parts.throttleGroup ?? (() => null);
    this.secret = parts.secret ?? noSecrets;
    this.onEvent = parts.onEvent ?? (() => undefined);
  }

  get ending(): AbortSignal {
    return this.#ending.signal;
  }

  giveUpDerivations(): void {
    this.#ending.abort();
  }

  async open(options: NodeOptions, policy: OpenPolicy = {}): Promise<Node> {
    const node = await openNode(this, options, rootContext(policy));
    node.references += 1;
    return node;
  }

  async openImage(
    path: string,
    format: string | null,
    readOnly: boolean,
    policy: OpenPolicy = {},
  ): Promise<Node> {
    const node = await openImage(this, { path, format, readOnly }, policy);
    node.references += 1;
    return node;
  }

  async openByName(
    name: string,
    options: Readonly<Record<string, unknown>>,
    policy: OpenPolicy = {},
  ): Promise<Node> {
    const node = await openByName(this, { name, options, policy });
    node.references += 1;
    return node;
  }

  find(name: string): BlockNode | null {
    return this.#nodes.get(name) ?? null;
  }

  require(name: string): BlockNode {
    const node = this.find(name);
    if (node !== null) return node;
    throw new BlockError(
      'not-found',
      `Cannot find device='${name}' nor node-name='${name}'`,
      { node: name },
    );
  }

  /** Oldest first. A node is older than the backing files that its own opening opens. */
  get nodes(): Iterable<BlockNode> {
    return [...this.#nodes.values()].sort((a, b) => a.sequence - b.sequence);
  }

  /** Gives a node that is being opened its place among the others. */
  enlist(node: BlockNode): void {
    this.#lastSequence += 1;
    node.sequence = this.#lastSequence;
  }

  /** Makes a fully opened node known by its name. */
  adopt(node: BlockNode): void {
    if (node.sequence === 0) this.enlist(node);
    this.#nodes.set(node.name, node);
  }

  async close(node: Node): Promise<void> {
    const own = asBlockNode(node);
    assert(own.references > 0, `node '${own.name}' has no reference to drop`);
    own.references -= 1;
    await this.closeIfUnused(own);
  }

  async closeAll(): Promise<void> {
    let failure: { error: unknown } | null = null;
    this.#leaving.forget();
    for (const node of this.#nodes.values()) node.references = 0;
    for (;;) {
      const unused = [...this.#nodes.values()].filter((node) => node.parents.size === 0);
      if (unused.length === 0) break;
      for (const node of unused) {
        try {
          await this.closeNode(node);
        } catch (error) {
          failure ??= { error };
        }
      }
    }
    if (failure !== null) throw failure.error;
  }

  attach(node: Node, user: EdgeUser | string, permissions: PermissionPair): Promise<Backend> {
    const full = typeof user === 'string' ? { description: user } : user;
    try {
      return Promise.resolve(this.attachNow(asBlockNode(node), full, permissions));
    } catch (error) {
      return Promise.reject(error);
    }
  }

  attachNow(node: BlockNode, user: EdgeUser, permissions: PermissionPair): GraphBackend {
    refuseClosing(node);
    const backend = new GraphBackend({ owner: this, node, user, permissions });
    node.parents.add(backend.edge);
    try {
      refreshPermissions([node]).commit?.();
    } catch (error) {
      node.parents.delete(backend.edge);
      throw error;
    }
    this.drains.join(node, backend.edge.parent);
    return backend;
  }

  changePermissions(edge: Edge, permissions: PermissionPair): void {
    const before = edge.permissions;
    edge.permissions = permissions;
    try {
      refreshPermissions([edge.node]).commit?.();
    } catch (error) {
      edge.permissions = before;
      throw error;
    }
    this.#leaving.retry();
  }

  async detachBackend(backend: GraphBackend): Promise<void> {
    const node = backend.node;
    node.parents.delete(backend.edge);
    refreshPermissions([node]).commit?.();
    this.#leaving.retry();
    await settled([node]);
    await this.closeIfUnused(node);
  }

  /** A driver asks for less of its children than before. */
  refreshNode(node: BlockNode): void {
    if (node.closing === null) refreshPermissions([node]).commit?.();
  }

  async drain(nodes: readonly Node[]): Promise<DrainedSection> {
    return await this.drains.drain(nodes.map(asBlockNode));
  }

  async drainAll(): Promise<DrainedSection> {
    return await this.drains.drain([...this.nodes].map(asBlockNode), 'each');
  }

  async standStill(nodes?: readonly Node[]): Promise<void> {
    const section = nodes === undefined ? await this.drainAll() : await this.drain(nodes);
    section.end();
    await this.drains.rest([...this.nodes].map(asBlockNode));
  }

  freezeChain(top: Node, base: Node | null, owner: string): () => void {
    const below = base === null ? null : asBlockNode(base);
    const thaw = freezeChain(asBlockNode(top), below, owner);
    return () => {
      thaw();
      this.#leaving.retry();
    };
  }

  async insertFilter(request: InsertFilterRequest): Promise<Node> {
    return await this.#changes.run(() => insertFilter(this, request));
  }

  async removeFilter(filter: Node): Promise<void> {
    await this.#leaving.remove(asBlockNode(filter));
  }

  async replaceNode(request: ReplaceRequest): Promise<void> {
    await this.#changes.run(() => replaceNode(this, request));
  }

  async setBacking(node: Node, backing: Node | null): Promise<void> {
    const target = backing === null ? null : asBlockNode(backing);
    await this.#changes.run(() => setBacking(this, asBlockNode(node), target));
  }

  async addChild(parent: Node, child: Node): Promise<void> {
    const nodes = { parent: asBlockNode(parent), child: asBlockNode(child) };
    await this.#changes.run(() => addListedChild(this, nodes));
  }

  async removeChild(parent: Node, name: string): Promise<void> {
    await this.#changes.run(() => removeListedChild(this, asBlockNode(parent), name));
  }

  async reopen(requests: readonly NodeOptions[]): Promise<void> {
    await this.#changes.run(() => reopenNodes(this, requests));
  }

  async changeOptions(
    node: Node,
    options: Readonly<Record<string, unknown>>,
    modes?: { readonly writeThrough: boolean },
  ): Promise<void> {
    const change = { node: asBlockNode(node), options, ...modes };
    await this.#changes.run(() => changeOptions(this, change));
  }

  async setReadOnly(node: Node, readOnly: boolean): Promise<void> {
    await this.#changes.run(() => setReadOnly(this, asBlockNode(node), readOnly));
  }

  async appendOverlay(node: Node, overlay: Node): Promise<void> {
    const prepared = await this.prepareOverlay(node, overlay);
    await prepared.commit();
  }

  async prepareOverlay(node: Node, overlay: Node): Promise<PreparedOverlay> {
    const [below, top] = [asBlockNode(node), asBlockNode(overlay)];
    const undo = await this.#changes.run(() => appendOverlay(this, below, top));
    return {
      commit: () => this.#changes.run(() => sealBelow(this, below)),
      undo: () => this.#changes.run(undo),
    };
  }

  /** Adds an edge with the permissions that follow; refused, nothing is changed. */
  addEdge(request: EdgeRequest): Edge {
    const { parent, name, role, child } = request;
    refuseClosing(child);
    assert(!parent.edges.has(name), `node '${parent.name}' has a child '${name}' already`);
    const edge = new Edge({
      name,
      role,
      parent: parent.asParent,
      node: child,
      permissions: NO_PERMISSIONS,
    });
    placeLast(edge, parent);
    parent.edges.set(name, edge);
    child.parents.add(edge);
    try {
      refreshPermissions([parent]).commit?.();
    } catch (error) {
      this.removeEdge(edge);
      throw error;
    }
    return edge;
  }

  /** Only ever lowers permissions, so it cannot be refused. */
  removeEdge(edge: Edge): void {
    (edge.parent.node as BlockNode | null)?.edges.delete(edge.name);
    edge.node.parents.delete(edge);
    refreshPermissions([edge.node]).commit?.();
  }

  async closeIfUnused(node: BlockNode): Promise<void> {
    if (node.parents.size === 0 && node.references === 0) await this.closeNode(node);
  }

  /** Closes a node without parents; everything is let go of even when a flush fails. */
  closeNode(node: BlockNode): Promise<void> {
    node.closing ??= this.#closeNow(node);
    return node.closing;
  }

  async #closeNow(node: BlockNode): Promise<void> {
    // Nobody finds it any more; the name stays taken until the file is let go of.
    this.#nodes.delete(node.name);
    let failure: { error: unknown } | null = null;
    const guard = async (work: () => Promise<void> | undefined): Promise<void> => {
      try {
        await work();
      } catch (error) {
        failure ??= { error };
      }
    };
    while (node.inFlight > 0) await node.pipeline.tracker.idle();
    const driverNode = node.pipeline.driverNode;
    if (driverNode !== null) {
      if (!node.readOnly) await guard(() => driverNode.prepareReadOnly?.());
      node.pipeline.driverNode = null;
      await guard(() => driverNode.close());
    }
    const children = [...node.edges.values()];
    for (const edge of children) this.removeEdge(edge);
    this.#leaving.retry();
    this.names.release(node.name);
    for (const { node: child } of children) {
      await settled([child]);
      await guard(() => this.closeIfUnused(child));
    }
    if (failure !== null) throw (failure as { error: unknown }).error;
  }
}
