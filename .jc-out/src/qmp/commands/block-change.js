// SPDX-License-Identifier: Apache-2.0
// Commands that change nodes that are there: size, snapshots, backing links, what is watched.
import { BlockError, Permission } from '../../base/index.js';
import { operationRefusal, UNNAMED_USER } from '../../block/index.js';
import { changeBackingFile } from '../../engine/index.js';
import { findNode, runAction } from '../transaction/index.js';
export const blockChangeCommands = {
    block_resize: async (engine, args) => {
        const node = findNode(engine, args);
        if (args.size < 0)
            throw new BlockError('invalid-option', "Parameter 'size' expects a >0 size");
        requireFree(node, args.device);
        await resize(engine, node, Number(args.size));
    },
    'block-set-write-threshold': (engine, args) => {
        const node = engine.graph.find(args['node-name']);
        if (node === null) {
            throw new BlockError('not-found', `Device '${args['node-name']}' not found`);
        }
        engine.writeThresholds.set(node, args['write-threshold']);
    },
    'blockdev-snapshot': (engine, data) => runAction(engine, { type: 'blockdev-snapshot', data }),
    'blockdev-snapshot-sync': (engine, data) => runAction(engine, { type: 'blockdev-snapshot-sync', data }),
    'change-backing-file': (engine, args) => changeBackingFile(engine, {
        device: args.device,
        image: args['image-node-name'],
        backingFile: args['backing-file'],
    }),
    'x-blockdev-change': (engine, args) => changeChildren(engine, args),
    'x-blockdev-set-iothread': (engine, args) => engine.placeNode(args['node-name'], args.iothread, args.force ?? false),
};
async function changeChildren({ graph, jobs }, args) {
    const { parent: name, child, node } = args;
    const parent = jobs.node(name);
    if ((child === undefined) === (node === undefined)) {
        throw new BlockError('invalid-option', child === undefined
            ? 'Either child or node must be specified'
            : 'The parameters child and node are in conflict');
    }
    if (child !== undefined)
        return await graph.removeChild(parent, child);
    const added = graph.find(node ?? '');
    if (added === null)
        throw new BlockError('not-found', `Node '${node ?? ''}' not found`);
    await graph.addChild(parent, added);
}
function requireFree(node, device) {
    const reason = operationRefusal(node, 'resize');
    if (reason === null)
        return;
    throw new BlockError('busy', `Device '${device ?? '(null)'}' is in use`, {
        node: node.name,
        hint: reason,
    });
}
async function resize(engine, node, size) {
    const { graph } = engine;
    const backend = await graph.attach(node, UNNAMED_USER, {
        taken: Permission.resize,
        shared: Permission.all,
    });
    try {
        const section = await graph.drain([node]);
        try {
            await node.truncate(size, { exact: false });
        }
        finally {
            section.end();
        }
    }
    finally {
        await backend.detach();
    }
}
