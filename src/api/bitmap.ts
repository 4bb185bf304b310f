// SPDX-License-Identifier: Apache-2.0
// Commands for dirty bitmaps.

import { bool, command, optional, str, uint32 } from '../schema/index.js';

export const blockDirtyBitmapAdd = command({
  name: 'block-dirty-bitmap-add',
  since: '2.4',
  doc: 'Adds a bitmap that records writes to a node from now on.',
  args: {
    node: str,
    name: str,
    granularity: optional(uint32),
    persistent: optional(bool),
    disabled: optional(bool),
  },
});

const bitmap = { node: str, name: str } as const;

export const blockDirtyBitmapRemove = command({
  name: 'block-dirty-bitmap-remove',
  since: '2.4',
  doc: 'Removes a bitmap, from disk too when it is persistent.',
  args: bitmap,
});
export const blockDirtyBitmapClear = command({
  name: 'block-dirty-bitmap-clear',
  since: '2.4',
  doc: 'Marks everything clean.',
  args: bitmap,
});
export const blockDirtyBitmapEnable = command({
  name: 'block-dirty-bitmap-enable',
  since: '4.0',
  doc: 'Lets a bitmap record writes.',
  args: bitmap,
});
export const blockDirtyBitmapDisable = command({
  name: 'block-dirty-bitmap-disable',
  since: '4.0',
  doc: 'Stops a bitmap from recording writes.',
  args: bitmap,
});
