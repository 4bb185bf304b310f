// SPDX-License-Identifier: Apache-2.0
// Nodes: adding, deleting, and looking at them.

import { Permission } from '../../base/index.js';
import type { PermissionMask } from '../../base/index.js';
import type { Child, Node } from '../../block/index.js';
import type { CommandResult } from '../../api/index.js';
import type { HandlerFamily } from '../handlers.js';
import { describeNode } from './node-info.js';

type GraphInfo = CommandResult<'x-debug-query-block-graph'>;
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

  'query-named-block-nodes': async (engine, { flat }) => {
    const infos = [];
    for (const node of [...engine.graph.nodes].reverse()) {
      infos.push(await describeNode(engine, node, flat ?? false));
    }
    return infos;
  },

  'x-debug-query-block-graph': (engine) => describeGraph(engine.graph.nodes),
};

function describeGraph(all: Iterable<Node>): GraphInfo {
  const ids = new Map<object, number>();
  const idOf = (key: object): number => {
    const known = ids.get(key) ?? ids.size + 1;
    ids.set(key, known);
    return known;
  };
  const nodes: GraphInfo['nodes'][number][] = [];
  const edges: GraphInfo['edges'][number][] = [];
  const users = new Map<object, string>();
  const edge = (child: Child, parent: object): void => {
    edges.push({
      parent: idOf(parent),
      child: idOf(child.node),
      name: child.name,
      perm: permissionNames(child.permissions.taken),
      'shared-perm': permissionNames(child.permissions.shared),
    });
  };
  for (const node of all) {
    nodes.push({ id: idOf(node), type: 'block-driver', name: node.name });
    for (const child of node.children.values()) edge(child, node);
    for (const parent of node.parents) {
      if (parent.parent.node !== null) continue;
      users.set(parent.parent, parent.parent.description);
      edge(parent, parent.parent);
    }
  }
  for (const [user, name] of users) nodes.push({ id: idOf(user), type: 'block-job', name });
  return { nodes, edges };
}
