// SPDX-License-Identifier: Apache-2.0
// Commands for nodes: adding, deleting, looking at them.
import { bool, command, enumeration, list, optional, str, struct, uint, } from '../schema/index.js';
import { blockdevOptions } from './blockdev-options.js';
import { blockDeviceInfo } from './node-info.js';
export const blockdevAdd = command({
    name: 'blockdev-add',
    since: '2.9',
    doc: 'Opens a node; the monitor owns it until blockdev-del.',
    args: blockdevOptions.resolve(),
});
export const blockdevReopen = command({
    name: 'blockdev-reopen',
    since: '6.1',
    doc: 'Gives nodes other options and children, all or none; what is not given is the default.',
    args: { options: list(blockdevOptions) },
});
export const xBlockdevReopen = command({
    name: 'x-blockdev-reopen',
    since: '4.0',
    doc: 'blockdev-reopen for one node, as it was before 6.1.',
    args: blockdevOptions.resolve(),
    features: ['unstable'],
});
export const blockdevDel = command({
    name: 'blockdev-del',
    since: '2.9',
    doc: 'Closes a node that the monitor owns and nobody uses.',
    args: { 'node-name': str },
});
export const queryNamedBlockNodes = command({
    name: 'query-named-block-nodes',
    since: '2.0',
    doc: 'Every node; unless flat, with the information of its backing images nested.',
    args: { flat: optional(bool) },
    returns: list(blockDeviceInfo),
});
export const xdbgNodeType = enumeration('XDbgBlockGraphNodeType', [
    'block-backend',
    'block-job',
    'block-driver',
]);
export const blockPermission = enumeration('BlockPermission', [
    'consistent-read',
    'write',
    'write-unchanged',
    'resize',
]);
export const blockGraph = struct('XDbgBlockGraph', {
    nodes: list(struct('XDbgBlockGraphNode', { id: uint, type: xdbgNodeType, name: str })),
    edges: list(struct('XDbgBlockGraphEdge', {
        parent: uint,
        child: uint,
        name: str,
        perm: list(blockPermission),
        'shared-perm': list(blockPermission),
    })),
});
export const debugQueryBlockGraph = command({
    name: 'x-debug-query-block-graph',
    since: '4.0',
    doc: 'Nodes, their users and the permissions of every edge between them.',
    returns: blockGraph,
    features: ['unstable'],
});
