// SPDX-License-Identifier: Apache-2.0
// Drained sections: every user outside the graph that can reach the drained nodes stops sending,
// then what runs already is waited for. Sections nest and overlap; each keeps the users it stopped,
// whatever becomes of the edges. Users that come to reach the nodes later are stopped too: attached
// ones at once, those that a graph change brings when the section of that change ends.
//
// Users are stopped and let go in the reference's order, which events of jobs show: of the edges of
// a node the newest first, and all above a node before an older edge of the node below.

import { assert, DRAIN_LIMITS, type Eventually } from '../base/index.js';
import type { BlockNode } from './block-node.js';
import type { Edge, EdgeParent } from './child.js';
import type { DriverNode } from './driver.js';
import type { DrainedSection } from './graph-api.js';

/**
 * What a section covers: the nodes and all above them (`above`), all below them too, with whoever
 * uses that (`around`), or nodes with none but their direct users (`each`).
 */
export type DrainScope = 'above' | 'around' | 'each';

interface Reach {
  readonly nodes: Set<BlockNode>;
  /** Users outside the graph, in the order in which they are told. */
  readonly users: Set<EdgeParent>;
}

/** `nodes` and everything above them. */
export function withAncestors(nodes: Iterable<BlockNode>): Set<BlockNode> {
  return above(nodes).nodes;
}

function above(starts: Iterable<BlockNode>): Reach {
  const nodes = new Set<BlockNode>();
  const users = new Set<EdgeParent>();
  const stack: Edge[] = [];
  const enter = (node: BlockNode): void => {
    if (nodes.has(node)) return;
    nodes.add(node);
    for (const edge of node.parents) stack.push(edge);
  };
  for (const start of starts) {
    enter(start);
    for (let edge = stack.pop(); edge !== undefined; edge = stack.pop()) {
      const { parent } = edge;
      if (parent.node === null) users.add(parent);
      else enter(parent.node as BlockNode);
    }
  }
  return { nodes, users };
}

function directly(starts: Iterable<BlockNode>): Reach {
  const nodes = new Set(starts);
  const users = new Set<EdgeParent>();
  for (const node of nodes) {
    for (const { parent } of [...node.parents].reverse()) {
      if (parent.node === null) users.add(parent);
    }
  }
  return { nodes, users };
}

/** The nodes and all below, each before its children, of which the newest comes first. */
function withDescendants(starts: Iterable<BlockNode>): Set<BlockNode> {
  const nodes = new Set<BlockNode>();
  const stack = [...starts].reverse();
  for (let node = stack.pop(); node !== undefined; node = stack.pop()) {
    if (nodes.has(node)) continue;
    nodes.add(node);
    const oldestFirst = [...node.edges.values()].sort((a, b) => a.turn - b.turn);
    for (const edge of oldestFirst) stack.push(edge.node);
  }
  return nodes;
}

/** The nodes that `nodes` use, however far down. */
function nodesBelow(nodes: Iterable<BlockNode>): Set<BlockNode> {
  const found = new Set<BlockNode>();
  for (const start of nodes) for (const edge of start.edges.values()) found.add(edge.node);
  for (const node of found) for (const edge of node.edges.values()) found.add(edge.node);
  return found;
}

function reaches(from: BlockNode, targets: ReadonlySet<BlockNode>): boolean {
  const found = new Set<BlockNode>([from]);
  for (const node of found) {
    if (targets.has(node)) return true;
    for (const edge of node.edges.values()) found.add(edge.node);
  }
  return false;
}

function reach(nodes: Iterable<BlockNode>, scope: DrainScope): Reach {
  if (scope === 'each') return directly(nodes);
  return above(scope === 'around' ? withDescendants(nodes) : nodes);
}

class Section implements DrainedSection {
  #roots: ReadonlySet<BlockNode>;
  readonly #scope: DrainScope;
  readonly #stopped = new Set<EdgeParent>();
  readonly #hurried = new Set<DriverNode>();
  readonly #sections: Set<Section>;
  #ended = false;

  constructor(nodes: Iterable<BlockNode>, scope: DrainScope, sections: Set<Section>) {
    this.#roots = new Set(nodes);
    this.#scope = scope;
    this.#sections = sections;
    sections.add(this);
  }

  /** Stops whoever reaches the nodes now; gives the nodes and all above them. */
  cover(): Set<BlockNode> {
    if (this.#scope === 'around') this.#roots = withDescendants(this.#roots);
    const { nodes, users } = reach(this.#roots, this.#scope);
    for (const user of users) this.#stop(user);
    for (const node of nodes) this.#hurry(node.pipeline.driverNode);
    // Whoever would let go what is held further down may wait for this very section.
    for (const node of nodesBelow(this.#roots)) {
      const { driverNode } = node.pipeline;
      if (driverNode?.breakpoints !== undefined) this.#hurry(driverNode);
    }
    return nodes;
  }

  /** Stops a new outside user of `node` if it reaches the nodes. */
  join(node: BlockNode, parent: EdgeParent): void {
    if (reaches(node, this.#roots)) this.#stop(parent);
  }

  #stop(parent: EdgeParent): void {
    if (this.#stopped.has(parent)) return;
    this.#stopped.add(parent);
    parent.quiesce?.();
  }

  /** A node's driver stops holding requests back. */
  #hurry(driverNode: DriverNode | null): void {
    if (driverNode?.drainBegin === undefined || this.#hurried.has(driverNode)) return;
    this.#hurried.add(driverNode);
    driverNode.drainBegin();
  }

  /** All that were stopped, in the order of the graph as it is by now. */
  #inOrder(): Set<EdgeParent> {
    const order = new Set<EdgeParent>();
    const { users } = reach(this.#roots, this.#scope);
    for (const user of users) if (this.#stopped.has(user)) order.add(user);
    for (const user of this.#stopped) order.add(user);
    return order;
  }

  end(): void {
    assert(!this.#ended, 'a drained section ended twice');
    this.#ended = true;
    this.#sections.delete(this);
    // What changed meanwhile may have led users to the nodes of others: they are not let go.
    for (const other of this.#sections) other.cover();
    for (const driverNode of this.#hurried) driverNode.drainEnd?.();
    for (const parent of this.#inOrder()) parent.unquiesce?.();
  }
}

export class DrainControl {
  readonly #sections = new Set<Section>();

  /** Gives users of the nodes that are about to do something a few turns to come to rest. */
  rest(nodes: Iterable<BlockNode>, scope: DrainScope = 'each'): Eventually<void> {
    return isAtRest(nodes, scope) ? undefined : this.#turns(nodes, scope);
  }

  async #turns(nodes: Iterable<BlockNode>, scope: DrainScope): Promise<void> {
    for (let turn = 0; turn < DRAIN_LIMITS.restTurns && !isAtRest(nodes, scope); turn++) {
      await new Promise<void>((resolve) => {
        setImmediate(resolve);
      });
    }
  }

  /** Stops all users of what is covered, and resolves when nothing runs there. */
  async drain(
    nodes: readonly BlockNode[],
    scope: DrainScope = 'above',
  ): Promise<DrainedSection> {
    const resting = this.rest(nodes, scope);
    if (resting !== undefined) await resting;
    const section = new Section(nodes, scope, this.#sections);
    for (let hasRested = false; ; ) {
      const covered = section.cover();
      const waiting = firstBusy(covered);
      if (waiting !== undefined) await waiting;
      else if (hasRested) return section;
      else {
        hasRested = true;
        const resting = this.rest(covered);
        if (resting === undefined) return section;
        await resting;
      }
    }
  }


  /** A new outside user of `node` stops with every section that covers the node. */
  join(node: BlockNode, parent: EdgeParent): void {
    for (const section of this.#sections) section.join(node, parent);
  }
}

function isAtRest(nodes: Iterable<BlockNode>, scope: DrainScope): boolean {
  for (const user of reach(nodes, scope).users) if (user.atRest?.() === false) return false;
  return true;
}

/** What to wait for next, or undefined when nothing runs. */
function firstBusy(nodes: Iterable<BlockNode>): Eventually<void> {
  for (const node of nodes) {
    if (node.inFlight > 0) return node.pipeline.tracker.idle();
    for (const edge of node.parents) {
      if (edge.parent.node === null && edge.parent.busy?.() === true) {
        return edge.parent.idle?.();
      }
    }
  }
  return undefined;
}
