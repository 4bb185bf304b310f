// SPDX-License-Identifier: Apache-2.0
// Nodes: adding, deleting, and looking at them.
import { Permission } from '../../base/index.js';
import { UNNAMED_USER } from '../../block/index.js';
import { describeNodes } from './node-info.js';
const PERMISSION_ORDER = [
    [Permission.resize, 'resize'],
    [Permission.writeUnchanged, 'write-unchanged'],
    [Permission.write, 'write'],
    [Permission.consistentRead, 'consistent-read'],
];
function permissionNames(mask) {
    return PERMISSION_ORDER.filter(([bit]) => (mask & bit) !== 0).map(([, name]) => name);
}
export const blockCoreCommands = {
    'blockdev-add': async (engine, options) => void (await engine.addNode(options)),
    'blockdev-del': (engine, args) => engine.deleteNode(args['node-name']),
    'blockdev-reopen': (engine, { options }) => engine.graph.reopen(options),
    'x-blockdev-reopen': (engine, options) => engine.graph.reopen([options]),
    'query-named-block-nodes': (engine, { flat }) => describeNodes(engine, flat ?? false),
    'x-debug-query-block-graph': (engine) => describeGraph(engine.graph.nodes),
};
/** Each node, each job once, and every other user for itself; edges name both ends by number. */
function describeGraph(all) {
    const ids = new Map();
    const nodes = [];
    const idOf = (key, type, name) => {
        const known = ids.get(key);
        if (known !== undefined)
            return known;
        const id = ids.size + 1;
        ids.set(key, id);
        nodes.push({ id, type, name });
        return id;
    };
    const idOfParent = ({ node, job, description }, edge) => {
        if (node !== null)
            return idOf(node, 'block-driver', node.name);
        if (job !== undefined)
            return idOf(job, 'block-job', job);
        const isUnnamed = description === UNNAMED_USER;
        return idOf(edge, 'block-backend', isUnnamed ? '' : description);
    };
    const edges = [];
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
    return { nodes, edges };
}
