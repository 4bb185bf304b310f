// SPDX-License-Identifier: Apache-2.0
// Commands that change nodes that are there: size, snapshots, backing links, what is watched.

import {
  alternate,
  bool,
  command,
  enumeration,
  int,
  nothing,
  optional,
  str,
  struct,
  uint,
} from '../schema/index.js';
import { snapshotInfo } from './node-info.js';

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

export const blockdevSnapshotOptions = struct('BlockdevSnapshot', { node: str, overlay: str });

export const blockdevSnapshot = command({
  name: 'blockdev-snapshot',
  since: '2.5',
  doc: 'Puts a node, added with `backing: null`, as overlay on another, which turns read-only.',
  args: blockdevSnapshotOptions,
  // The overlay may be the target of a mirror.
  features: ['allow-write-only-overlay'],
});

export const newImageMode = enumeration('NewImageMode', ['existing', 'absolute-paths']);

export const blockdevSnapshotSyncOptions = struct('BlockdevSnapshotSync', {
  device: optional(str),
  'node-name': optional(str),
  'snapshot-file': str,
  'snapshot-node-name': optional(str),
  format: optional(str),
  mode: optional(newImageMode),
});

export const blockdevSnapshotInternalOptions = struct('BlockdevSnapshotInternal', {
  device: str,
  name: str,
});

export const blockdevSnapshotSync = command({
  name: 'blockdev-snapshot-sync',
  since: '0.14',
  doc: 'Makes an image (or takes an existing one) and puts it as overlay on a node.',
  args: blockdevSnapshotSyncOptions,
});

export const blockdevSnapshotInternalSync = command({
  name: 'blockdev-snapshot-internal-sync',
  since: '1.7',
  doc: 'Makes a snapshot within an image whose format can hold it.',
  args: blockdevSnapshotInternalOptions,
});

export const blockdevSnapshotDeleteInternalSync = command({
  name: 'blockdev-snapshot-delete-internal-sync',
  since: '1.7',
  doc: 'Deletes a snapshot within an image, by ID, name or both, and says what it was.',
  args: { device: str, id: optional(str), name: optional(str) },
  returns: snapshotInfo,
});

export const changeBackingFile = command({
  name: 'change-backing-file',
  since: '2.1',
  doc: 'Rewrites the backing link in the header of an image; the graph stays.',
  args: { device: str, 'image-node-name': str, 'backing-file': str },
});

export const xBlockdevChange = command({
  name: 'x-blockdev-change',
  since: '2.7',
  doc: 'Adds `node` to the children of a quorum, or takes the edge `child` out.',
  args: { parent: str, child: optional(str), node: optional(str) },
  features: ['unstable'],
});

export const xBlockdevSetIothread = command({
  name: 'x-blockdev-set-iothread',
  since: '2.12',
  doc: 'Gives the bulk work of a node, and of all that is connected to it, to an I/O thread.',
  args: {
    'node-name': str,
    iothread: alternate('StrOrNull', { s: str, n: nothing }),
    force: optional(bool),
  },
  features: ['unstable'],
});
