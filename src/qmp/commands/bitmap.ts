// SPDX-License-Identifier: Apache-2.0
// Dirty bitmaps: adding, removing, clearing, and what queries show of them.

import type { CommandResult } from '../../api/index.js';
import { BlockError } from '../../base/index.js';
import { bitmapSha256, clearBitmap, DirtyBitmap, removeBitmap } from '../../block/index.js';
import { setRecording, shownBitmapsOf, type Node, type ShownBits } from '../../block/index.js';
import {
  addNamedBitmap,
  findNamedBitmap,
  mergeNamedBitmaps,
  strictMerge,
} from '../../engine/index.js';
import type { BitmapName, Engine } from '../../engine/index.js';
import type { HandlerFamily } from '../handlers.js';

type BitmapInfo = NonNullable<CommandResult<'query-named-block-nodes'>[number]['dirty-bitmaps']>;

function nodeOf(engine: Engine, name: string): Node {
  const node = engine.graph.find(name);
  if (node !== null) return node;
  throw new BlockError('not-found', `Node '${name}' not found`);
}

function record(engine: Engine, { node, name }: BitmapName, on: boolean): void {
  setRecording(nodeOf(engine, node), name, on);
}

export const bitmapCommands: HandlerFamily<
  | 'block-dirty-bitmap-add'
  | 'block-dirty-bitmap-remove'
  | 'block-dirty-bitmap-clear'
  | 'block-dirty-bitmap-enable'
  | 'block-dirty-bitmap-disable'
  | 'block-dirty-bitmap-merge'
  | 'x-block-dirty-bitmap-enable'
  | 'x-block-dirty-bitmap-disable'
  | 'x-block-dirty-bitmap-merge'
  | 'x-debug-block-dirty-bitmap-sha256'
> = {
  'block-dirty-bitmap-add': (engine, args) => void addNamedBitmap(engine, args),
  'block-dirty-bitmap-remove': (engine, { node, name }) => removeBitmap(nodeOf(engine, node), name),
  'block-dirty-bitmap-clear': (engine, { node, name }) => clearBitmap(nodeOf(engine, node), name),
  'block-dirty-bitmap-enable': (engine, args) => record(engine, args, true),
  'block-dirty-bitmap-disable': (engine, args) => record(engine, args, false),
  'block-dirty-bitmap-merge': (engine, args) => void mergeNamedBitmaps(engine, args),
  'x-block-dirty-bitmap-enable': (engine, args) => record(engine, args, true),
  'x-block-dirty-bitmap-disable': (engine, args) => record(engine, args, false),
  'x-block-dirty-bitmap-merge': (engine, args) =>
    void mergeNamedBitmaps(engine, strictMerge(args)),
  'x-debug-block-dirty-bitmap-sha256': async (engine, args) => ({
    sha256: await bitmapSha256(findNamedBitmap(engine, args).bitmap),
  }),
};

/** The newest comes first, as in the reference. */
export function describeBitmaps(node: Node): BitmapInfo {
  return shownBitmapsOf(node).toReversed().map((shown) =>
    shown instanceof DirtyBitmap ? describeBitmap(shown) : describeBits(shown),
  );
}

function describeBits({ granularity, count, recording = false }: ShownBits): BitmapInfo[number] {
  return { recording, persistent: false, busy: false, granularity, count };
}

function describeBitmap(bitmap: DirtyBitmap): BitmapInfo[number] {
  return {
    ...(bitmap.name === null ? {} : { name: bitmap.name }),
    recording: bitmap.recording,
    persistent: bitmap.persistent,
    busy: bitmap.busy,
    granularity: bitmap.granularity,
    count: bitmap.count,
    ...(bitmap.inconsistent ? { inconsistent: true } : {}),
  };
}
