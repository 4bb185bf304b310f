// SPDX-License-Identifier: Apache-2.0
// Lists of children: nodes that come to a running node and leave it again (`x-blockdev-change`).
//
// The driver names a new child and says which may go; the edge changes in one drained section.
// A node's options name the children of its lists in the order of the edges, which is the order in
// which the driver sees them.
import { BlockError, must } from '../base/index.js';
import { changeIdle, refuseCycle } from './graph-changes.js';
import { renewFilenames } from './open/node-filename.js';
/** The driver's only list: which one a new child belongs to is never said. */
function listOf(parent) {
    return Object.keys(parent.driver.childLists ?? {})[0] ?? null;
}
/** Puts the names of the children into the options of the node. */
export function nameListedChildren(node) {
    for (const option of Object.keys(node.driver.childLists ?? {})) {
        const names = [...node.edges]
            .filter(([name]) => name.startsWith(`${option}.`))
            .map(([, edge]) => edge.node.name);
        node.options = { ...node.options, [option]: names };
        node.given = { ...node.given, [option]: names };
    }
}
/** Throws with nothing changed where there can be no such child. */
export async function addListedChild(graph, nodes) {
    const { parent, child } = nodes;
    await changeDrained(graph, parent, () => {
        const list = listOf(parent);
        const driverNode = parent.pipeline.open();
        if (list === null || driverNode.nextChildName === undefined) {
            throw unsupported(parent, 'adding');
        }
        if (child.parents.size > 0) {
            throw new BlockError('busy', `The node ${child.name} already has a parent`);
        }
        const name = driverNode.nextChildName();
        refuseCycle(parent, name, child);
        const role = must(parent.driver.childLists?.[list], 'declaration of a list').role;
        driverNode.childAdded?.(graph.addEdge({ parent, name, role, child }));
    });
}
/** Throws with nothing changed where the child has to stay. */
export async function removeListedChild(graph, parent, name) {
    await changeDrained(graph, parent, (tx) => {
        const driverNode = parent.pipeline.open();
        const edge = parent.edges.get(name);
        if (edge === undefined) {
            throw new BlockError('not-found', `Node '${parent.name}' does not have child '${name}'`);
        }
        if (driverNode.requireDroppable === undefined)
            throw unsupported(parent, 'removing');
        driverNode.requireDroppable(edge);
        const child = edge.node;
        graph.removeEdge(edge);
        if (child.inheritsFrom === parent)
            child.inheritsFrom = null;
        driverNode.childDropped?.(edge);
        tx.add({ clean: () => graph.closeIfUnused(child) });
    });
}
async function changeDrained(graph, parent, change) {
    const section = await graph.drains.drain([parent]);
    try {
        await changeIdle([parent], (tx) => {
            change(tx);
            nameListedChildren(parent);
            renewFilenames([parent]);
        });
    }
    finally {
        section.end();
    }
}
function unsupported(parent, verb) {
    const text = `The node ${parent.name} does not support ${verb} a child`;
    return new BlockError('unsupported', text, { node: parent.name });
}
