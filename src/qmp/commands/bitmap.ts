// SPDX-License-Identifier: Apache-2.0
// Dirty bitmaps: adding, removing, clearing, and what queries show of them.

import type { CommandResult } from '../../api/index.js';
import { BlockError } from '../../base/index.js';
import {
  addBitmap,
  checkBitmapUsable,
  clearBitmap,
  removeBitmap,
  DirtyBitmap,
  requireBitmap,
  shownBitmapsOf,
} from '../../block/index.js';
import type { Node, ShownBits } from '../../block/index.js';
import type { Engine } from '../../engine/index.js';
import type { HandlerFamily } from '../handlers.js';

type BitmapInfo = NonNullable<CommandResult<'query-named-block-nodes'>[number]['dirty-bitmaps']>;

function nodeOf(engine: Engine, name: string): Node {
  const node = engine.graph.find(name);
  if (node === null) throw new BlockError('not-found', `Node '${name}' not found`);
  return node;
}

function setRecording(engine: Engine, args: { node: string; name: string }, on: boolean): void {
  const bitmap = requireBitmap(nodeOf(engine, args.node), args.name);
  checkBitmapUsable(bitmap, 'change');
  bitmap.enabled = on;
}

export const bitmapCommands: HandlerFamily<
  | 'block-dirty-bitmap-add'
  | 'block-dirty-bitmap-remove'
  | 'block-dirty-bitmap-clear'
  | 'block-dirty-bitmap-enable'
  | 'block-dirty-bitmap-disable'
> = {
  'block-dirty-bitmap-add': (engine, { node: nodeName, persistent, ...options }) => {
    const node = engine.jobs.node(nodeName);
    if (persistent === true) {
      throw new BlockError(
        'unsupported',
        `Can't store persistent bitmaps to ${nodeName}: Operation not supported`,
      );
    }
    addBitmap(node, options);
  },
  'block-dirty-bitmap-remove': (engine, { node, name }) => removeBitmap(nodeOf(engine, node), name),
  'block-dirty-bitmap-clear': (engine, { node, name }) => clearBitmap(nodeOf(engine, node), name),
  'block-dirty-bitmap-enable': (engine, args) => setRecording(engine, args, true),
  'block-dirty-bitmap-disable': (engine, args) => setRecording(engine, args, false),
};

/** The newest comes first, as in the reference. */
export function describeBitmaps(node: Node): BitmapInfo {
  return shownBitmapsOf(node).toReversed().map((shown) =>
    shown instanceof DirtyBitmap ? describeBitmap(shown) : describeBits(shown),
  );
}

function describeBits({ granularity, count }: ShownBits): BitmapInfo[number] {
  return { recording: false, persistent: false, busy: false, granularity, count };
}

function describeBitmap(bitmap: DirtyBitmap): BitmapInfo[number] {
  return {
    name: bitmap.name ?? '',
    recording: bitmap.enabled && !bitmap.busy,
    persistent: bitmap.persistent,
    busy: bitmap.busy,
    granularity: bitmap.granularity,
    count: bitmap.dirtyBytes,
    ...(bitmap.inconsistent ? { inconsistent: true } : {}),
  };
}
