// SPDX-License-Identifier: Apache-2.0
// Operations that a node's users keep others from: a running job all of them, an overlay those that
// would change its backing file below it.
//
// A block belongs to the edge of the user who declares it: it comes with the edge, moves with it
// and ends with it, so that nothing is left after a failure. Commands ask for their own operation,
// with requireOperation(); of several users who refuse, the newest is named.
import { BlockError } from '../../base/index.js';
import { ChildRole } from '../driver.js';
/** What every block job declares on each of its nodes; `type` is that of the job. */
export function jobBlock(type) {
    return { reason: `block device is in use by block job: ${type}`, allowed: BESIDE_A_JOB };
}
const BESIDE_A_JOB = new Set(['dataplane']);
/** Jobs that copy out of or into a backing file mind the chain themselves. */
const BELOW_AN_OVERLAY = new Set([
    'backup-source',
    'backup-target',
    'commit-source',
    'commit-target',
    'stream',
]);
function blockOf(edge) {
    const { blocks, node } = edge.parent;
    if (blocks !== undefined)
        return blocks;
    if (node === null || (edge.role & ChildRole.cow) === 0)
        return null;
    return { reason: `node is used as backing hd of '${node.name}'`, allowed: BELOW_AN_OVERLAY };
}
/** Why the operation is refused on the node, or null. */
export function operationRefusal(node, operation) {
    for (const edge of [...node.parents].reverse()) {
        const block = blockOf(edge);
        if (block !== null && !block.allowed.has(operation))
            return block.reason;
    }
    return null;
}
/** Throws kind `busy`, naming the node and who is in the way. */
export function requireOperation(node, operation) {
    const reason = operationRefusal(node, operation);
    if (reason === null)
        return;
    throw new BlockError('busy', `Node '${node.name}' is busy: ${reason}`, { node: node.name });
}
