// SPDX-License-Identifier: Apache-2.0
// Who may do what on which node: the permissions of all edges, recomputed after a graph change.
//
// Each edge says what its parent takes and what it lets others take. A node's cumulative pair is
// the union of what is taken and the intersection of what is shared. refreshPermissions() works on
// the graph as it already stands, synchronously: it goes down from the changed nodes, checks
// conflicts, and tells drivers (file locks). Locks are first raised to what old and new need
// together, and lowered at commit, so that neither commit nor abort can fail.

import {
  assert,
  BlockError,
  Permission,
  PERMISSION_NAMES,
  type PermissionMask,
  type PermissionPair,
} from '../base/index.js';
import type { BlockNode } from './block-node.js';
import type { Edge } from './child.js';
import { ChildRole, declarationOf } from './driver.js';
import type { Node } from './node.js';
import type { Step } from './transaction.js';

export const NO_PERMISSIONS: PermissionPair = { taken: Permission.none, shared: Permission.all };

const CHANGING = Permission.write | Permission.resize;

/** `write, resize` for a mask; the order of the bits. */
export function permissionText(mask: PermissionMask): string {
  return PERMISSION_NAMES.filter((_, bit) => (mask & (1 << bit)) !== 0).join(', ');
}

export function cumulativePermissions(edges: Iterable<Edge>): PermissionPair {
  let taken: PermissionMask = Permission.none;
  let shared: PermissionMask = Permission.all;
  for (const edge of edges) {
    taken |= edge.permissions.taken;
    shared &= edge.permissions.shared;
  }
  return { taken, shared };
}

/**
 * Where metadata lives nobody else may write or change the size. Data that parents may write,
 * even unchanged, has to be written, and may have to grow.
 */
function storagePermissions(edge: Edge, parents: PermissionPair): PermissionPair {
  const parent = edge.parent.node as BlockNode;
  let { taken, shared } = parents;
  if ((edge.role & ChildRole.metadata) !== 0) {
    if (!parent.inspectOnly) taken |= Permission.consistentRead;
    if (!parent.readOnly) taken |= CHANGING;
    shared &= ~CHANGING;
  }
  if ((edge.role & ChildRole.data) !== 0) {
    if ((taken & Permission.writeUnchanged) !== 0) taken |= Permission.write;
    // Nothing but data: what a larger image shows of it is made zeroes first.
    const isBeside = edge.role === ChildRole.data;
    if (isBeside && (taken & Permission.resize) !== 0) taken |= Permission.write;
    if ((taken & Permission.write) !== 0) taken |= Permission.resize;
    shared &= ~Permission.resize;
  }
  return { taken, shared };
}

/** A backing file is only read; it may change under those parents that can bear it. */
function cowPermissions(parents: PermissionPair): PermissionPair {
  const changing = (parents.shared & Permission.write) !== 0 ? CHANGING : Permission.none;
  return {
    taken: parents.taken & Permission.consistentRead,
    shared: changing | Permission.consistentRead | Permission.writeUnchanged,
  };
}

/** Default permissions of a node on its child, from what the node's own parents need. */
export function defaultPermissions(edge: Edge, parents: PermissionPair): PermissionPair {
  const parent = edge.parent.node as BlockNode | null;
  assert(parent !== null, 'default permissions are those of a node');
  const style = declarationOf(parent.driver, edge.name)?.permissions ?? styleOfRole(edge.role);
  switch (style) {
    case 'filter':
      return parents;
    case 'cow':
      return cowPermissions(parents);
    case 'format':
      return storagePermissions(edge, parents);
    case 'own':
      return NO_PERMISSIONS;
  }
}

function styleOfRole(role: number): 'format' | 'filter' | 'cow' {
  if ((role & ChildRole.cow) !== 0) return 'cow';
  return (role & ChildRole.filtered) !== 0 ? 'filter' : 'format';
}

function wantedPermissions(edge: Edge, parents: PermissionPair): PermissionPair {
  const parent = edge.parent.node as BlockNode | null;
  const own = parent?.pipeline.driverNode ?? null;
  const opening = own === null
    ? parent?.driver.openingPermissions?.(parent.options, parents, edge.name)
    : undefined;
  if (parent?.outOfPlace === true && opening === undefined) return NO_PERMISSIONS;
  const wanted =
    opening ?? own?.childPermissions?.(edge, parents) ?? defaultPermissions(edge, parents);
  const shared = edge.node.forceShare ? Permission.all : wanted.shared;
  return { taken: wanted.taken, shared };
}

function describeUser(edge: Edge): string {
  const { node, description } = edge.parent;
  const who = node === null ? description : `node '${node.name}'`;
  return `${who} (uses node '${edge.node.name}' as '${edge.name}' child)`;
}

function conflictBetween(user: Edge, refuser: Edge): BlockError | null {
  const clash = user.permissions.taken & ~refuser.permissions.shared;
  if (clash === 0) return null;
  return new BlockError(
    'permission',
    `Permission conflict on node '${user.node.name}': permissions '${permissionText(clash)}' are ` +
      `both required by ${describeUser(user)} and unshared by ${describeUser(refuser)}.`,
    { node: user.node.name },
  );
}

/**
 * Throws kind `permission` where two children of an image that is to be made are one node, which
 * cannot have the length that each of them gets. `children`: by name, null where there is none.
 */
export function requireTwoNodes(children: Readonly<Record<string, Node | null>>): void {
  const [[one, node] = ['', null], [other, same] = ['', null]] = Object.entries(children);
  if (node === null || node !== same) return;
  throw new BlockError(
    'permission',
    `Permission conflict on node '${node.name}': permissions 'resize' are both required and ` +
      `unshared by the children '${one}' and '${other}' of one image`,
    { node: node.name },
  );
}

function checkConflicts(node: BlockNode): void {
  // Of several conflicts the one with the newest user is told.
  const edges = [...node.parents].reverse();
  for (const refuser of edges) {
    for (const user of edges) {
      if (user === refuser) continue;
      const conflict = conflictBetween(user, refuser);
      if (conflict !== null) throw conflict;
    }
  }
}

function checkWritable(
  node: BlockNode,
  cumulative: PermissionPair,
  wereWritable: ReadonlySet<BlockNode>,
): void {
  const writes = Permission.write | Permission.writeUnchanged;
  if (!node.readOnly || (cumulative.taken & writes) === 0) return;
  if (wereWritable.has(node)) {
    const text = `Read-only block node '${node.name}' cannot support read-write users`;
    throw new BlockError('permission', text, { node: node.name });
  }
  throw new BlockError('permission', 'Block node is read-only', { node: node.name });
}

/** The nodes and everything below them, parents before children. */
export function topologicalOrder(roots: Iterable<BlockNode>): BlockNode[] {
  const finished: BlockNode[] = [];
  const seen = new Set<BlockNode>();
  // Iterative, because chains are as deep as images say.
  const stack: { node: BlockNode; children: Iterator<Edge> }[] = [];
  const push = (node: BlockNode): void => {
    if (seen.has(node)) return;
    seen.add(node);
    stack.push({ node, children: node.edges.values() });
  };
  for (const root of roots) {
    push(root);
    for (let top = stack.at(-1); top !== undefined; top = stack.at(-1)) {
      const next = top.children.next();
      if (next.done === true) {
        finished.push(top.node);
        stack.pop();
      } else {
        push(next.value.node);
      }
    }
  }
  return finished.reverse();
}

interface SavedNode {
  readonly node: BlockNode;
  readonly before: PermissionPair;
  readonly after: PermissionPair;
}

/**
 * Recomputes the permissions of `nodes` and of everything below them. Throws kind `permission` on
 * a conflict and kind `locked` when a file is in use elsewhere, with everything as it was. Nodes of
 * `wereWritable` have just become read-only.
 */
export function refreshPermissions(
  nodes: Iterable<BlockNode>,
  wereWritable: ReadonlySet<BlockNode> = new Set(),
): Step {
  const savedEdges: { edge: Edge; permissions: PermissionPair }[] = [];
  const savedNodes: SavedNode[] = [];
  const abort = (): void => {
    for (const { edge, permissions } of savedEdges.reverse()) edge.permissions = permissions;
    for (const { node, before } of savedNodes.reverse()) applyToDriver(node, before);
  };
  try {
    for (const node of topologicalOrder(nodes)) {
      const after = cumulativePermissions(node.parents);
      checkConflicts(node);
      checkWritable(node, after, wereWritable);
      const before = node.cumulative;
      savedNodes.push({ node, before, after });
      applyToDriver(node, {
        taken: before.taken | after.taken,
        shared: before.shared & after.shared,
      });
      for (const edge of node.edges.values()) {
        savedEdges.push({ edge, permissions: edge.permissions });
        edge.permissions = wantedPermissions(edge, after);
      }
    }
  } catch (error) {
    abort();
    throw error;
  }
  return {
    commit() {
      for (const { node, after } of savedNodes) applyToDriver(node, after);
    },
    abort,
  };
}

function applyToDriver(node: BlockNode, cumulative: PermissionPair): void {
  if (node.cumulative.taken === cumulative.taken && node.cumulative.shared === cumulative.shared) {
    return;
  }
  // The driver is told first: when the lock is refused, the node keeps what it had.
  node.pipeline.driverNode?.setPermissions?.(cumulative);
  node.cumulative = cumulative;
  node.pipeline.taken = cumulative.taken;
}
