// SPDX-License-Identifier: Apache-2.0
// Nodes that take the places of others: what a job does when its copy becomes the disk.
//
// One drained turn for all of it: edges move together, permissions are recomputed once, and a
// refusal leaves every edge where it was. Edges of jobs stay: they mean the very node. A filter
// that goes out with the move stays without users; whoever put it in removes it.

import { must } from '../../base/index.js';
import type { BlockNode } from '../block-node.js';
import type { Edge } from '../child.js';
import type { ReplaceRequest } from '../graph-api.js';
import { changeIdle, moveEdges, noteChild, refuseClosing } from '../graph-changes.js';
import type { BlockGraph } from '../graph.js';
import { refreshPermissions, topologicalOrder } from '../permissions.js';
import type { Step } from '../transaction.js';

export async function replaceNode(graph: BlockGraph, request: ReplaceRequest): Promise<void> {
  const [node, by] = [request.node as BlockNode, request.by as BlockNode];
  const without = (request.without ?? []) as readonly BlockNode[];
  const all = [node, by, ...without];
  const section = await graph.drains.drain(all);
  try {
    await changeIdle(all, (tx) => {
      refuseClosing(by);
      const keep = new Set<BlockNode | null>([...topologicalOrder([by]), ...without]);
      const moving: Edge[] = [];
      for (const from of [node, ...without]) {
        for (const edge of from.parents) {
          const parent = edge.parent.node as BlockNode | null;
          if (edge.parent.job === undefined && !keep.has(parent)) moving.push(edge);
        }
      }
      for (const filter of without) tx.add(goOut(filter));
      tx.add(moveEdges(moving, by));
      tx.add(refreshPermissions([by, node, ...without]));
      for (const edge of moving) {
        const parent = edge.parent.node as BlockNode | null;
        if (parent !== null) tx.add(noteChild(parent, edge.name, by));
      }
      tx.add({ clean: () => graph.closeIfUnused(node) });
    });
  } finally {
    section.end();
  }
}

/** The filter asks nothing of its child any more. */
function goOut(filter: BlockNode): Step {
  must(filter.filtered, 'a filter has a filtered child');
  filter.outOfPlace = true;
  return {
    abort() {
      filter.outOfPlace = false;
    },
  };
}
