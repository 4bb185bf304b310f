// SPDX-License-Identifier: Apache-2.0
// Actions on dirty bitmaps. They act when they are prepared, so that later actions see them: a
// backup takes a bitmap that an action before it has merged.
//
// Taking back never loses a write: recorded bits are only ever added to what is restored, but for
// those of a merge, whose bitmap saw no writes since (its node is drained).

import { checkBitmapUsable, detachBitmap, removeStored } from '../../block/index.js';
import {
  addNamedBitmap,
  findNamedBitmap,
  mergeNamedBitmaps,
  strictMerge,
} from '../../engine/index.js';
import type { BitmapMerge, BitmapName } from '../../engine/index.js';
import type { ActionContext, ActionFamily, PreparedAction } from './action.js';

export const bitmapActions: ActionFamily<
  | 'block-dirty-bitmap-add'
  | 'block-dirty-bitmap-remove'
  | 'block-dirty-bitmap-clear'
  | 'block-dirty-bitmap-enable'
  | 'block-dirty-bitmap-disable'
  | 'block-dirty-bitmap-merge'
  | 'x-block-dirty-bitmap-enable'
  | 'x-block-dirty-bitmap-disable'
  | 'x-block-dirty-bitmap-merge'
> = {
  'block-dirty-bitmap-add': ({ engine }, data) => {
    const { node, bitmap } = addNamedBitmap(engine, data);
    return { abort: () => detachBitmap(node, bitmap) };
  },
  'block-dirty-bitmap-remove': remove,
  'block-dirty-bitmap-clear': clear,
  'block-dirty-bitmap-enable': (context, data) => record(context, data, true),
  'block-dirty-bitmap-disable': (context, data) => record(context, data, false),
  'block-dirty-bitmap-merge': merge,
  'x-block-dirty-bitmap-enable': (context, data) => record(context, data, true),
  'x-block-dirty-bitmap-disable': (context, data) => record(context, data, false),
  'x-block-dirty-bitmap-merge': (context, data) => merge(context, strictMerge(data)),
};

/**
 * It goes in the end; until then it has its name and is busy. A persistent one is off the image at
 * once, for that can fail; taken back, it is stored again when the others are.
 */
async function remove({ engine }: ActionContext, data: BitmapName): Promise<PreparedAction> {
  const { node, bitmap } = findNamedBitmap(engine, data);
  checkBitmapUsable(bitmap, 'remove');
  const release = bitmap.hold('transaction');
  bitmap.leaving = true;
  const stay = (): void => {
    bitmap.leaving = false;
    release();
  };
  try {
    await removeStored(node, bitmap);
  } catch (error) {
    stay();
    throw error;
  }
  return {
    commit() {
      release();
      detachBitmap(node, bitmap);
    },
    abort: stay,
  };
}

function clear({ engine }: ActionContext, data: BitmapName): PreparedAction {
  const { bitmap } = findNamedBitmap(engine, data);
  checkBitmapUsable(bitmap, 'change');
  const before = bitmap.copy(null);
  bitmap.clearAll();
  return { abort: () => bitmap.merge(before) };
}

function record({ engine }: ActionContext, data: BitmapName, on: boolean): PreparedAction {
  const { bitmap } = findNamedBitmap(engine, data);
  checkBitmapUsable(bitmap, 'use');
  const before = bitmap.enabled;
  bitmap.enabled = on;
  return {
    abort() {
      bitmap.enabled = before;
    },
  };
}

function merge({ engine }: ActionContext, request: BitmapMerge): PreparedAction {
  const { bitmap } = findNamedBitmap(engine, { node: request.node, name: request.target });
  const before = bitmap.copy(null);
  mergeNamedBitmaps(engine, request);
  return { abort: () => bitmap.adopt(before) };
}
