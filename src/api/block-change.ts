// SPDX-License-Identifier: Apache-2.0
// Commands that change the size of a node or what is watched on it.

import { command, int, optional, str, uint } from '../schema/index.js';

export const blockResize = command({
  name: 'block_resize',
  since: '0.14',
  doc: 'Changes the size of an image to `size` bytes.',
  args: { device: optional(str), 'node-name': optional(str), size: int },
});

export const blockSetWriteThreshold = command({
  name: 'block-set-write-threshold',
  since: '2.3',
  doc: 'Asks for one event when a write goes past `write-threshold` bytes; 0 takes that back.',
  args: { 'node-name': str, 'write-threshold': uint },
});
