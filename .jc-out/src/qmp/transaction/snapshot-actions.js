// SPDX-License-Identifier: Apache-2.0
// Snapshots: what the commands of the same names do is a transaction of one of these actions.
import { BlockError } from '../../base/index.js';
import { prepareSnapshotInto, prepareSnapshotOnto } from '../../engine/index.js';
export const snapshotActions = {
    'blockdev-snapshot': ({ engine }, data) => prepareSnapshot(engine, data),
    'blockdev-snapshot-sync': ({ engine }, data) => prepareSnapshotSync(engine, data),
    'blockdev-snapshot-internal-sync': ({ engine }, { device }) => {
        const node = engine.jobs.rootNode(device);
        throw new BlockError('unsupported', `Block format '${node.driver.name}' used by device '${device}' does not support internal ` +
            'snapshots', { node: node.name });
    },
};
function prepareSnapshot(engine, data) {
    return prepareSnapshotOnto(engine, engine.jobs.node(data.node), data.overlay);
}
function prepareSnapshotSync(engine, data) {
    return prepareSnapshotInto(engine, findNode(engine, data), {
        file: data['snapshot-file'],
        name: data['snapshot-node-name'],
        format: data.format ?? 'qcow2',
        existing: data.mode === 'existing',
    });
}
/** There are no devices, so that only a node name finds something. */
export function findNode(engine, args) {
    const name = args['node-name'] ?? '';
    const node = engine.graph.find(name);
    if (node !== null)
        return node;
    throw new BlockError('not-found', `Cannot find device='${args.device ?? ''}' nor node-name='${name}'`);
}
