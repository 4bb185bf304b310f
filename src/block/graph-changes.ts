// SPDX-License-Identifier: Apache-2.0
// Changes of a running graph: filters in and out, backing links, frozen chains.
//
// Each change drains the nodes it touches, then moves edges and recomputes permissions in one
// synchronous go; when the permissions are refused the edges go back. Files and nodes that are no
// longer needed are closed afterwards.

import { assert, BlockError, must } from '../base/index.js';
import { BlockNode } from './block-node.js';
import { Edge } from './child.js';
import { ChildRole, declarationOf, type Driver } from './driver.js';
import type { InsertFilterRequest } from './graph-api.js';
import type { BlockGraph } from './graph.js';
import { openContextOf, withPrefix } from './open/make-node.js';
import { renewFilenames } from './open/node-filename.js';
import { NO_PERMISSIONS, refreshPermissions, topologicalOrder } from './permissions.js';
import { transaction, type Step, type Transaction } from './transaction.js';

export function refuseClosing(node: BlockNode): void {
  if (node.closing === null) return;
  throw new BlockError('closed', `Node '${node.name}' is being closed`, { node: node.name });
}

/** Throws where `child` is above `parent` already, or is it. */
export function refuseCycle(parent: BlockNode, name: string, child: BlockNode): void {
  if (!topologicalOrder([child]).includes(parent)) return;
  throw new BlockError(
    'invalid-option',
    `Making '${child.name}' a ${name} child of '${parent.name}' would create a cycle`,
    { node: parent.name },
  );
}

/** Notes under which name a node knows a child, for reopens and for its file name. */
export function noteChild(node: BlockNode, name: string, child: BlockNode | null): Step {
  return {
    commit() {
      const names = { [name]: child?.name ?? null };
      node.options = { ...node.options, ...names };
      node.given = { ...node.given, ...names };
      renewFilenames([node]);
    },
  };
}

function refuseFrozen(edge: Edge, to: string): void {
  if (edge.frozenBy === null) return;
  const from = `'${edge.node.name}'`;
  const parent = edge.parent.node?.name ?? edge.parent.description;
  throw new BlockError(
    'busy',
    `Cannot change '${edge.name}' link from '${parent}' to ${from}: it is frozen by ` +
      `'${edge.frozenBy}' (wanted: ${to})`,
    { node: edge.node.name },
  );
}

/** Moves `edges` to another node; permissions are not looked at. */
export function moveEdges(edges: readonly Edge[], to: BlockNode): Step {
  const before = edges.map((edge) => edge.node);
  const place = (edge: Edge, node: BlockNode): void => {
    edge.node.parents.delete(edge);
    edge.node = node;
    node.parents.add(edge);
    placeLast(edge, edge.parent.node as BlockNode | null);
  };
  for (const { name, node, frozenBy } of edges) {
    if (frozenBy === null) continue;
    throw new BlockError('busy', `Cannot change '${name}' link to '${node.name}'`, {
      node: node.name,
    });
  }
  for (const edge of edges) place(edge, to);
  return {
    commit() {
      for (const edge of edges) edge.parent.childResized?.(edge);
    },
    abort() {
      edges.forEach((edge, index) => place(edge, must(before[index], 'node of an edge')));
    },
  };
}

/** Notes that no child of `parent` came to its node later. */
export function placeLast(edge: Edge, parent: BlockNode | null): void {
  if (parent === null) return;
  for (const { turn } of parent.edges.values()) edge.turn = Math.max(edge.turn, turn + 1);
}

/**
 * Edges to `below` that go to `above` when that is put over it: not those of nodes below it, which
 * would close a cycle, nor those of jobs, which mean the very node.
 */
export function edgesToMove(below: BlockNode, above: BlockNode): Edge[] {
  const inside = new Set(topologicalOrder([above]));
  return [...below.parents].filter(
    ({ parent }) => parent.job === undefined && !inside.has(parent.node as BlockNode),
  );
}

/**
 * Changes the graph in a turn in which nothing runs on the nodes. Users are drained already, but a
 * driver above may do something on its own, such as punching freed clusters. The graph may have
 * changed since the section began: what `change` relies on is looked up in it.
 */
export async function changeIdle(
  nodes: readonly BlockNode[],
  change: (tx: Transaction) => void,
): Promise<void> {
  for (let busy = findBusy(nodes); busy !== undefined; busy = findBusy(nodes)) {
    await busy.pipeline.tracker.idle();
  }
  const before = topologicalOrder(nodes);
  await transaction((tx) => {
    for (const node of nodes) refuseClosing(node);
    change(tx);
  });
  await settled([...before, ...nodes]);
}

/** Waits for what drivers began when permissions were taken away from them. */
export async function settled(tops: readonly BlockNode[]): Promise<void> {
  for (const node of topologicalOrder(tops)) await node.pipeline.driverNode?.settling;
}

function findBusy(nodes: readonly BlockNode[]): BlockNode | undefined {
  return nodes.find((node) => node.inFlight > 0);
}

/** Runs a synchronous change inside a drained section. */
export async function changeDrained(
  graph: BlockGraph,
  nodes: readonly BlockNode[],
  change: (tx: Transaction) => void,
): Promise<void> {
  const section = await graph.drains.drain(nodes);
  try {
    await changeIdle(nodes, change);
  } finally {
    section.end();
  }
}

function setOutOfPlace(filter: BlockNode, value: boolean): Step {
  filter.outOfPlace = value;
  return {
    abort() {
      filter.outOfPlace = !value;
    },
  };
}

export async function insertFilter(
  graph: BlockGraph,
  request: InsertFilterRequest,
): Promise<BlockNode> {
  const below = request.below as BlockNode;
  const driver = request.driver as unknown as Driver;
  const filter = new BlockNode({
    name: graph.names.claim(request.name ?? undefined),
    driver,
    options: { driver: driver.name },
    given: { driver: driver.name },
    policy: {
      readOnly: request.readOnly ?? below.readOnly,
      writeThrough: false,
      unmap: true,
      detectZeroes: 'off',
    },
    inspectOnly: false,
    forceShare: false,
  });
  filter.outOfPlace = true;
  filter.implicit = request.name === null;
  // Who inserts it takes it out again, whatever edges come and go meanwhile.
  filter.references = 1;
  const section = await graph.drains.drain([below]);
  let failed = 'Could not create node: ';
  try {
    for (const [name, declaration] of Object.entries(driver.children)) {
      const child =
        (declaration.role & ChildRole.filtered) !== 0 ? below : request.children?.[name];
      if (child === undefined) continue;
      graph.addEdge({ parent: filter, name, role: declaration.role, child: child as BlockNode });
    }
    const context = openContextOf(graph, filter);
    filter.pipeline.driverNode = await driver.open(
      context,
      request.internal as Record<string, unknown>,
    );
    filter.filename = below.filename;
    failed = 'Could not replace node: ';
    await changeIdle([below], (tx) => {
      const moving = edgesToMove(below, filter);
      tx.add(setOutOfPlace(filter, false));
      tx.add(moveEdges(moving, filter));
      tx.add(refreshPermissions([filter]));
      tx.add({ commit: () => renewFilenames([filter]) });
    });
    graph.adopt(filter);
  } catch (error) {
    await graph.closeNode(filter).catch(() => undefined);
    throw request.explained === true ? withPrefix(failed, error) : error;
  } finally {
    section.end();
  }
  return filter;
}

export async function removeFilter(graph: BlockGraph, filter: BlockNode): Promise<void> {
  await changeDrained(graph, [filter], (tx) => {
    const below = must(filter.filtered, 'a filter has a filtered child');
    tx.add(setOutOfPlace(filter, true));
    tx.add(moveEdges([...filter.parents], below));
    tx.add(refreshPermissions([filter, below]));
    tx.add({ commit: () => renewFilenames([below]) });
  });
  filter.references = 0;
  await graph.closeNode(filter);
}

export async function setBacking(
  graph: BlockGraph,
  node: BlockNode,
  backing: BlockNode | null,
): Promise<void> {
  const declared = Object.entries(node.driver.children).find(
    ([, declaration]) => (declaration.role & ChildRole.cow) !== 0,
  );
  if (declared === undefined) {
    throw new BlockError(
      'unsupported',
      `Driver '${node.driver.name}' of node '${node.name}' does not support backing files`,
      { node: node.name },
    );
  }
  const [name, { role }] = declared;
  await changeDrained(graph, [node], (tx) => {
    if (backing !== null) refuseCycle(node, name, backing);
    const old = node.edges.get(name) ?? null;
    const wanted = backing === null ? 'none' : `'${backing.name}'`;
    if (old !== null) {
      refuseFrozen(old, wanted);
      detachEdge(tx, node, old);
    }
    if (backing !== null) attachEdge(tx, graph, { parent: node, name, role, child: backing });
    const affected = old === null ? [node] : [node, old.node];
    tx.add(refreshPermissions(affected));
    tx.add(noteChild(node, name, backing));
    if (old !== null) tx.add({ clean: () => graph.closeIfUnused(old.node) });
  });
}

export function detachEdge(tx: Transaction, parent: BlockNode, edge: Edge): void {
  const { inheritsFrom } = edge.node;
  if (inheritsFrom === parent) edge.node.inheritsFrom = null;
  parent.edges.delete(edge.name);
  edge.node.parents.delete(edge);
  tx.add({
    abort() {
      edge.node.inheritsFrom = inheritsFrom;
      parent.edges.set(edge.name, edge);
      edge.node.parents.add(edge);
    },
  });
}

/** A new edge to a declared child; permissions are not looked at. */
export function placeEdge(parent: BlockNode, name: string, child: BlockNode): Step {
  const { role } = must(declarationOf(parent.driver, name), 'declaration of a child');
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
  return {
    abort() {
      parent.edges.delete(name);
      child.parents.delete(edge);
    },
  };
}

function attachEdge(
  tx: Transaction,
  graph: BlockGraph,
  request: { parent: BlockNode; name: string; role: number; child: BlockNode },
): void {
  const edge = graph.addEdge(request);
  tx.add({ abort: () => graph.removeEdge(edge) });
}

/** Freezes every link from `top` down to `base`; the result thaws them. */
export function freezeChain(top: BlockNode, base: BlockNode | null, owner: string): () => void {
  const frozen: Edge[] = [];
  for (let node: BlockNode = top; node !== base; ) {
    const edge = node.edgeWithRole(ChildRole.filtered) ?? node.edgeWithRole(ChildRole.cow);
    if (edge === null) {
      assert(base === null, `node '${base?.name ?? ''}' is in the chain below '${top.name}'`);
      break;
    }
    if (edge.frozenBy !== null) {
      const text = `Cannot change '${edge.name}' link from '${node.name}' to '${edge.node.name}'`;
      throw new BlockError('busy', text, { node: edge.node.name });
    }
    frozen.push(edge);
    node = edge.node;
  }
  for (const edge of frozen) edge.freezers.push(owner);
  return () => {
    for (const edge of frozen) {
      const at = edge.freezers.indexOf(owner);
      if (at >= 0) edge.freezers.splice(at, 1);
    }
    frozen.length = 0;
  };
}
