// SPDX-License-Identifier: Apache-2.0
// Commands that change nodes that are there: size, snapshots, backing links, what is watched.

import { BlockError, Permission } from '../../base/index.js';
import { operationRefusal, UNNAMED_USER } from '../../block/index.js';
import type { Node } from '../../block/index.js';
import { changeBackingFile, deleteInternalSnapshot } from '../../engine/index.js';
import type { Engine } from '../../engine/index.js';
import type { HandlerFamily } from '../handlers.js';
import { findNode, runAction } from '../transaction/index.js';
import { describeSnapshot } from './node-info.js';

export const blockChangeCommands: HandlerFamily<
  | 'block_resize'
  | 'block-set-write-threshold'
  | 'blockdev-snapshot'
  | 'blockdev-snapshot-sync'
  | 'blockdev-snapshot-internal-sync'
  | 'blockdev-snapshot-delete-internal-sync'
  | 'change-backing-file'
  | 'x-blockdev-change'
  | 'x-blockdev-set-iothread'
> = {
  block_resize: async (engine, args) => {
    const node = findNode(engine, args);
    if (args.size < 0) throw new BlockError('invalid-option', "Parameter 'size' expects a >0 size");
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
  'blockdev-snapshot-sync': (engine, data) =>
    runAction(engine, { type: 'blockdev-snapshot-sync', data }),
  'blockdev-snapshot-internal-sync': (engine, data) =>
    runAction(engine, { type: 'blockdev-snapshot-internal-sync', data }),
  'blockdev-snapshot-delete-internal-sync': async (engine, args) =>
    describeSnapshot(await deleteInternalSnapshot(engine, args)),
  'change-backing-file': (engine, args) =>
    changeBackingFile(engine, {
      device: args.device,
      image: args['image-node-name'],
      backingFile: args['backing-file'],
    }),
  'x-blockdev-change': (engine, args) => changeChildren(engine, args),
  'x-blockdev-set-iothread': (engine, args) =>
    engine.placeNode(args['node-name'], args.iothread, args.force ?? false),
};

async function changeChildren(
  { graph, jobs }: Engine,
  args: { readonly parent: string; readonly child?: string; readonly node?: string },
): Promise<void> {
  const { parent: name, child, node } = args;
  const parent = jobs.node(name);
  if ((child === undefined) === (node === undefined)) {
    throw new BlockError(
      'invalid-option',
      child === undefined
        ? 'Either child or node must be specified'
        : 'The parameters child and node are in conflict',
    );
  }
  if (child !== undefined) return await graph.removeChild(parent, child);
  const added = graph.find(node ?? '');
  if (added === null) throw new BlockError('not-found', `Node '${node ?? ''}' not found`);
  await graph.addChild(parent, added);
}

function requireFree(node: Node, device: string | undefined): void {
  const reason = operationRefusal(node, 'resize');
  if (reason === null) return;
  throw new BlockError('busy', `Device '${device ?? '(null)'}' is in use`, {
    node: node.name,
    hint: reason,
  });
}

async function resize(engine: Engine, node: Node, size: number): Promise<void> {
  const { graph } = engine;
  const backend = await graph.attach(node, UNNAMED_USER, {
    taken: Permission.resize,
    shared: Permission.all,
  });
  try {
    const section = await graph.drain([node]);
    try {
      await node.truncate(size, { exact: false });
    } finally {
      section.end();
    }
  } finally {
    await backend.detach();
  }
}
