// SPDX-License-Identifier: Apache-2.0
// Nodes that take the places of others: what a job does when its copy becomes the disk.
//
// One drained turn for all of it: edges move together, permissions are recomputed once, and a
// refusal leaves every edge where it was. Edges of jobs stay: they mean the very node. A filter
// that goes out with the move stays without users; whoever put it in removes it.
import { must } from '../../base/index.js';
import { changeIdle, moveEdges, noteChild, refuseClosing } from '../graph-changes.js';
import { refreshPermissions, topologicalOrder } from '../permissions.js';
export async function replaceNode(graph, request) {
    const [node, by] = [request.node, request.by];
    const without = (request.without ?? []);
    const all = [node, by, ...without];
    const section = await graph.drains.drain(all);
    try {
        await changeIdle(all, (tx) => {
            refuseClosing(by);
            const keep = new Set([...topologicalOrder([by]), ...without]);
            const moving = [];
            for (const from of [node, ...without]) {
                for (const edge of from.parents) {
                    const parent = edge.parent.node;
                    if (edge.parent.job === undefined && !keep.has(parent))
                        moving.push(edge);
                }
            }
            for (const filter of without)
                tx.add(goOut(filter));
            tx.add(moveEdges(moving, by));
            tx.add(refreshPermissions([by, node, ...without]));
            for (const edge of moving) {
                const parent = edge.parent.node;
                if (parent !== null)
                    tx.add(noteChild(parent, edge.name, by));
            }
            tx.add({ clean: () => graph.closeIfUnused(node) });
        });
    }
    finally {
        section.end();
    }
}
/** The filter asks nothing of its child any more. */
function goOut(filter) {
    must(filter.filtered, 'a filter has a filtered child');
    filter.outOfPlace = true;
    return {
        abort() {
            filter.outOfPlace = false;
        },
    };
}
