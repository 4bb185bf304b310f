// SPDX-License-Identifier: Apache-2.0
// Nodes: adding, deleting, and looking at them.

import { Permission } from '../../base/index.js';
import type { PermissionMask } from '../../base/index.js';
import { UNNAMED_USER } from '../../block/index.js';
import type { Child, EdgeParent, Node } from '../../block/index.js';
import type { CommandResult } from '../../api/index.js';
import type { HandlerFamily } from '../handlers.js';
import { describeNodes } from './node-info.js';

type GraphInfo = CommandResult<'x-debug-query-block-graph'>;
type NodeType = GraphInfo['nodes'][number]['type'];
type PermissionName = GraphInfo['edges'][number]['perm'][number];

const PERMISSION_ORDER: readonly (readonly [PermissionMask, PermissionName])[] = [
  [Permission.resize, 'resize'],
  [Permission.writeUnchanged, 'write-unchanged'],
  [Permission.write, 'write'],
  [Permission.consistentRead, 'consistent-read'],
];

function permissionNames(mask: PermissionMask): PermissionName[] {
  return PERMISSION_ORDER.filter(([bit]) => (mask & bit) !== 0).map(([, name]) => name);
}

export const blockCoreCommands: HandlerFamily<
  | 'blockdev-add'
  | 'blockdev-del'
  | 'blockdev-reopen'
  | 'x-blockdev-reopen'
  | 'query-named-block-nodes'
  | 'x-debug-query-block-graph'
> = {
  'blockdev-add': async (engine, options) => void (await engine.addNode(options)),
  'blockdev-del': (engine, args) => engine.deleteNode(args['node-name']),

  'blockdev-reopen': (engine, { options }) => engine.graph.reopen(options),
  'x-blockdev-reopen': (engine, options) => engine.graph.reopen([options]),

  'query-named-block-nodes': (engine, { flat }) => describeNodes(engine, flat ?? false),

  'x-debug-query-block-graph': (engine) =>
    describeGraph(engine.graph.nodes, engine.jobs.listBlockJobs()),
};

/**
 * Each node, each job once (one that has ended, too), and every other user for itself; edges name
 * both ends by number.
 */
function describeGraph(all: Iterable<Node>, jobs: Iterable<{ readonly id: string }>): GraphInfo {
  const ids = new Map<unknown, number>();
  const nodes: GraphInfo['nodes'][number][] = [];
  const idOf = (key: unknown, type: NodeType, name: string): number => {
    const known = ids.get(key);
    if (known !== undefined) return known;
    const id = ids.size + 1;
    ids.set(key, id);
    nodes.push({ id, type, name });
    return id;
  };
  const idOfParent = ({ node, job, description }: EdgeParent, edge: Child): number => {
    if (node !== null) return idOf(node, 'block-driver', node.name);
    if (job !== undefined) return idOf(job, 'block-job', job);
    const isUnnamed = description === UNNAMED_USER;
    return idOf(edge, 'block-backend', isUnnamed ? '' : description);
  };
  const edges: GraphInfo['edges'][number][] = [];
  for (const node of all) {
    const child = idOf(node, 'block-driver', node.name);
    for (const edge of node.parents) {
      edges.push({
        parent: idOfParent(edge.parent, edge),
        child,
        name: edge.name,
        perm: permissionNames(edge.permissions.taken),
        'shared-perm': permissionNames(edge.permissions.shared),
      });
    }
  }
  for (const { id } of jobs) idOf(id, 'block-job', id);
  return { nodes, edges };
}
