// SPDX-License-Identifier: Apache-2.0
// Reopening: nodes of a list take new options and children, all of them or none.
//
// What is planned (plan.ts) is made ready with every node drained and flushed: drivers give
// the instances that will serve, which write nothing and hold no lock yet. Then one turn without
// an await switches instances, flags and edges and recomputes permissions; a refusal there puts
// everything back. Instances and nodes that are out of use are closed afterwards.

import { assert, BlockError, errnoText, must, toBlockError } from '../../base/index.js';
import type { BlockNode } from '../block-node.js';
import type { Child, Edge } from '../child.js';
import type { DriverNode, OpenContext } from '../driver.js';
import { changeIdle, detachEdge, moveEdges, placeEdge, refuseClosing } from '../graph-changes.js';
import type { DrainedSection, NodeOptions } from '../graph-api.js';
import type { BlockGraph } from '../graph.js';
import { openContextOf } from '../open/make-node.js';
import { renewFilenames } from '../open/node-filename.js';
import { refreshPermissions } from '../permissions.js';
import {
  checkPlans,
  planChange,
  planReopen,
  type OptionsChange,
  type ReopenPlan,
  type ReopenPlans,
} from './plan.js';
import type { Step, Transaction } from '../transaction.js';

/** A plan with the instance that is going to serve the node. */
interface ReadyPlan extends ReopenPlan {
  readonly old: DriverNode;
  readonly next: DriverNode;
  readonly futures: readonly FutureChild[];
}

/** Throws with every node as it was. */
export async function reopenNodes(
  graph: BlockGraph,
  requests: readonly NodeOptions[],
): Promise<void> {
  await reopenPlanned(graph, () => planReopen(graph, requests));
}

/** Gives a node other options and keeps those that are not named. */
export async function changeOptions(graph: BlockGraph, change: OptionsChange): Promise<void> {
  await reopenPlanned(graph, () => planChange(change));
}

/** Lets a node be written to or not; all its other options stay. */
export async function setReadOnly(
  graph: BlockGraph,
  node: BlockNode,
  readOnly: boolean,
): Promise<void> {
  if (node.readOnly === readOnly) return;
  await changeOptions(graph, { node, options: { 'read-only': readOnly } });
}

async function reopenPlanned(graph: BlockGraph, plan: () => ReopenPlans): Promise<void> {
  const sections: DrainedSection[] = [];
  const drained = new Set<BlockNode>();
  try {
    let plans = plan();
    // Planned again after each wait: a job may have ended, and nodes come that its filter had.
    while ([...plans.keys()].some((node) => !drained.has(node))) {
      sections.push(await graph.drains.drain([...plans.keys()], 'around'));
      for (const node of plans.keys()) drained.add(node);
      plans = plan();
    }
    checkPlans(graph, plans);
    await flushAll(plans.keys());
    await reopenDrained(graph, [...plans.values()]);
  } finally {
    for (const section of sections) section.end();
  }
}

async function flushAll(nodes: Iterable<BlockNode>): Promise<void> {
  for (const node of nodes) {
    try {
      await node.flush();
    } catch (error) {
      throw flushError(error);
    }
  }
}

function flushError(error: unknown): BlockError {
  const failure = toBlockError(error);
  return new BlockError(failure.kind, `Error flushing drive: ${errnoText(failure.errno)}`, {
    ...failure.context,
    cause: failure,
  });
}

async function reopenDrained(graph: BlockGraph, plans: readonly ReopenPlan[]): Promise<void> {
  const ready: ReadyPlan[] = [];
  let unused: readonly DriverNode[] = [];
  const replaced = (pick: (plan: ReadyPlan) => DriverNode): DriverNode[] =>
    ready.filter(({ old, next }) => old !== next).map(pick);
  try {
    for (const plan of plans) ready.push(await makeReady(graph, plan));
    await changeIdle(plans.map(({ node }) => node), (tx) => switchOver(graph, tx, ready));
    unused = replaced(({ old }) => old);
  } catch (error) {
    unused = replaced(({ next }) => next);
    throw error;
  } finally {
    // All was flushed before, so that nothing of worth can fail here.
    for (const instance of unused) await instance.close().catch(() => undefined);
  }
}

async function makeReady(graph: BlockGraph, plan: ReopenPlan): Promise<ReadyPlan> {
  const { node } = plan;
  const old = node.pipeline.open();
  if (!node.readOnly) {
    // Another instance may read the image afresh: nothing may be held back in this one.
    try {
      await old.prepareReadOnly?.();
    } catch (error) {
      throw flushError(error);
    }
  }
  const futures: FutureChild[] = [];
  const context: OpenContext = {
    ...openContextOf(graph, node),
    readOnly: plan.flags.policy.readOnly,
    child(name) {
      const edge = must(node.edges.get(name), `child '${name}' of node '${node.name}'`);
      const future = plan.children.get(name);
      if (future === undefined || future === null) return edge;
      const child = new FutureChild(edge, future);
      futures.push(child);
      return child;
    },
  };
  assert(old.reopen !== undefined, `driver '${node.driver.name}' reopens, as it names options`);
  const next = await old.reopen(context, plan.options);
  return { ...plan, old, next, futures };
}

/** An edge as it is going to be, for an instance that does not serve yet. */
class FutureChild implements Child {
  readonly #edge: Edge;
  #future: BlockNode | null;

  constructor(edge: Edge, future: BlockNode) {
    this.#edge = edge;
    this.#future = future;
  }

  /** The edge has moved: from now on it says itself where to. */
  arrive(): void {
    this.#future = null;
  }

  get name(): string {
    return this.#edge.name;
  }

  get role(): number {
    return this.#edge.role;
  }

  get parent(): Child['parent'] {
    return this.#edge.parent;
  }

  get node(): BlockNode {
    return this.#future ?? this.#edge.node;
  }

  get permissions(): Child['permissions'] {
    return this.#edge.permissions;
  }

  get frozenBy(): string | null {
    return this.#edge.frozenBy;
  }
}

function switchOver(graph: BlockGraph, tx: Transaction, plans: readonly ReadyPlan[]): void {
  const wereWritable = new Set<BlockNode>();
  const affected = new Set<BlockNode>();
  for (const plan of plans) {
    if (!plan.node.readOnly) wereWritable.add(plan.node);
    affected.add(plan.node);
    tx.add(switchNode(plan));
  }
  for (const plan of plans) {
    for (const [name, child] of plan.children) {
      const old = plan.node.edges.get(name) ?? null;
      if (old !== null) affected.add(old.node);
      moveChild(graph, tx, { plan, name, old, child });
    }
  }
  tx.add(refreshPermissions(affected, wereWritable));
  tx.add({ commit: () => renewFilenames(plans.map(({ node }) => node)) });
}

/** Puts the new instance and flags in force. */
function switchNode(plan: ReadyPlan): Step {
  const { node, old, next, flags } = plan;
  const { pipeline } = node;
  const before = {
    policy: pipeline.policy,
    readOnly: pipeline.readOnly,
    options: node.options,
    given: node.given,
    length: node.length,
  };
  if (next !== old) next.takeOver?.(old);
  pipeline.driverNode = next;
  pipeline.policy = flags.policy;
  pipeline.readOnly = flags.policy.readOnly || next.readOnly === true;
  node.options = plan.options;
  node.given = plan.given;
  return {
    commit() {
      for (const child of plan.futures) child.arrive();
      next.reopened?.(plan.options);
      if (node.length !== before.length) node.notifyResized();
    },
    async clean() {
      // A failure is met again by the first write, which must not go ahead of it.
      if (!node.readOnly && pipeline.driverNode === next) {
        await next.becameWritable?.().catch(() => undefined);
      }
    },
    abort() {
      if (next !== old) old.takeOver?.(next);
      pipeline.driverNode = old;
      pipeline.policy = before.policy;
      pipeline.readOnly = before.readOnly;
      node.options = before.options;
      node.given = before.given;
    },
  };
}

interface ChildMove {
  readonly plan: ReadyPlan;
  readonly name: string;
  readonly old: Edge | null;
  readonly child: BlockNode | null;
}

/** Permissions are not looked at: that is done when all children have moved. */
function moveChild(graph: BlockGraph, tx: Transaction, move: ChildMove): void {
  const { plan, name, old, child } = move;
  const { node } = plan;
  if (child !== null) refuseClosing(child);
  if (old !== null) tx.add({ clean: closing(graph, old.node) });
  if (old !== null && child !== null) {
    tx.add(disinherit(old.node, node));
    tx.add(moveEdges([old], child));
  } else if (old !== null) {
    detachEdge(tx, node, old);
  } else if (child !== null) {
    tx.add(placeEdge(node, name, child));
  }
}

function closing(graph: BlockGraph, node: BlockNode): () => Promise<void> {
  return () => graph.closeIfUnused(node);
}

function disinherit(child: BlockNode, parent: BlockNode): Step {
  if (child.inheritsFrom !== parent) return {};
  child.inheritsFrom = null;
  return {
    abort() {
      child.inheritsFrom = parent;
    },
  };
}
