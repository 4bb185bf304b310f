// SPDX-License-Identifier: Apache-2.0
// The dirty bitmaps of nodes: named ones that users manage, and private ones of jobs. All record
// writes through one observer of their node; a bitmap that is busy cannot be changed by users.

import { assert, BITMAP_LIMITS, BlockError, NAME_LIMITS } from '../../base/index.js';
import type { Eventually } from '../../base/index.js';
import { infoBelow } from '../inherited-info.js';
import type { Node } from '../node.js';
import { DirtyBitmap, isGranularity, type DirtyBitmapOptions } from './dirty-bitmap.js';

/** Granularity when none is asked for and the image has no clusters, in bytes. */
const DEFAULT_GRANULARITY = 65_536;
const MIN_DEFAULT_GRANULARITY = 4096;

interface Attached {
  readonly bitmap: DirtyBitmap;
}

/** Bits of a driver's own that queries show beside the node's bitmaps. */
export interface ShownBits {
  readonly granularity: number;
  /** Bits that are set times the granularity. */
  readonly count: number;
  /** Writes set bits; false unless given. */
  readonly recording?: boolean;
}

interface Shown {
  readonly bits: ShownBits;
}

/** What a node has, oldest first, and the one observer that all of its bitmaps share. */
interface NodeBitmaps {
  readonly list: (Attached | Shown)[];
  bitmapCount: number;
  stop: () => void;
}

const bitmapsByNode = new WeakMap<Node, NodeBitmaps>();

function bitmapsAt(node: Node): NodeBitmaps {
  let bitmaps = bitmapsByNode.get(node);
  if (bitmaps === undefined) {
    bitmaps = { list: [], bitmapCount: 0, stop: () => undefined };
    bitmapsByNode.set(node, bitmaps);
  }
  return bitmaps;
}

function attached(node: Node): (Attached | Shown)[] {
  return bitmapsAt(node).list;
}

/** An image may have thousands of them: an observer each would cost the square of that. */
function observe(node: Node, { list }: NodeBitmaps): () => void {
  return node.addObserver({
    afterWrite(offset, length) {
      for (const entry of list) {
        if (!('bitmap' in entry)) continue;
        const { bitmap } = entry;
        // Files grow by writing.
        if (offset + length > bitmap.size) bitmap.resize(node.length);
        if (bitmap.enabled) bitmap.set(offset, length);
      }
    },
    afterResize(length) {
      for (const entry of list) if ('bitmap' in entry) entry.bitmap.resize(length);
    },
  });
}

/** All named bitmaps of a node, oldest first. */
export function bitmapsOf(node: Node): DirtyBitmap[] {
  return shownBitmapsOf(node).filter(
    (shown) => shown instanceof DirtyBitmap && shown.name !== null,
  ) as DirtyBitmap[];
}

/** What queries show of a node, oldest first. */
export function shownBitmapsOf(node: Node): (DirtyBitmap | ShownBits)[] {
  return attached(node).map((entry) => ('bitmap' in entry ? entry.bitmap : entry.bits));
}

/** Queries show the bits until the result is called. */
export function showBits(node: Node, bits: ShownBits): () => void {
  const list = attached(node);
  const entry: Shown = { bits };
  list.push(entry);
  return () => void list.splice(list.indexOf(entry), 1);
}

export function findBitmap(node: Node, name: string): DirtyBitmap | null {
  return bitmapsOf(node).find((bitmap) => bitmap.name === name) ?? null;
}

/** Throws kind `not-found` naming the bitmap. */
export function requireBitmap(node: Node, name: string): DirtyBitmap {
  const bitmap = findBitmap(node, name);
  if (bitmap !== null) return bitmap;
  throw new BlockError('not-found', `Dirty bitmap '${name}' not found`, { node: node.name });
}

export interface AddBitmapOptions {
  readonly name: string;
  /** Bytes; by default the cluster size, 4 KiB at least and 64 KiB at most. */
  readonly granularity?: number;
  readonly disabled?: boolean;
  /** Kept with the image. */
  readonly persistent?: boolean;
}

/** Of the format below filters. */
function defaultGranularity(node: Node): number {
  const cluster = infoBelow(node).clusterSize ?? DEFAULT_GRANULARITY;
  return Math.max(MIN_DEFAULT_GRANULARITY, Math.min(cluster, DEFAULT_GRANULARITY));
}

export function requireBitmapName(name: string): void {
  if (name === '') throw new BlockError('invalid-option', 'Bitmap name cannot be empty');
}

/** Adds a named bitmap, or refuses the name or granularity, or that it is persistent. */
export function addBitmap(node: Node, options: AddBitmapOptions): DirtyBitmap {
  const { name } = options;
  requireBitmapName(name);
  const granularity = options.granularity ?? defaultGranularity(node);
  if (!isGranularity(granularity)) {
    throw new BlockError('invalid-option', 'Granularity must be power of 2 and at least 512');
  }
  if (options.persistent === true) requireStorable(node, name, granularity);
  if (Buffer.byteLength(name) > NAME_LIMITS.bitmapNameBytes) {
    throw new BlockError('invalid-option', `Bitmap name too long: ${name}`);
  }
  if (findBitmap(node, name) !== null) {
    throw new BlockError('exists', `Bitmap already exists: ${name}`, { node: node.name });
  }
  if (node.length / granularity > BITMAP_LIMITS.bits) {
    throw new BlockError(
      'invalid-option',
      `Bitmap '${name}' of node '${node.name}' would have more than ${BITMAP_LIMITS.bits} bits: ` +
        `granularity ${granularity} is too small for ${node.length} bytes`,
      { node: node.name },
    );
  }
  return attachBitmap(node, {
    name,
    size: node.length,
    granularity,
    enabled: options.disabled !== true,
    persistent: options.persistent === true,
  });
}

/** Whether bitmaps of the node can be persistent. */
export function keepsBitmaps(node: Node): boolean {
  return node.driverNode.bitmapStore?.keeps === true;
}

function requireStorable(node: Node, name: string, granularity: number): void {
  const { bitmapStore } = node.driverNode;
  if (bitmapStore === undefined) {
    throw new BlockError(
      'unsupported',
      `Can't store persistent bitmaps to ${node.name}: Operation not supported`,
    );
  }
  bitmapStore.requireRoom({ name, granularity, size: node.length });
}

/** Makes a bitmap that records the node's writes from now on. */
export function attachBitmap(node: Node, options: DirtyBitmapOptions): DirtyBitmap {
  const bitmap = new DirtyBitmap(options);
  const bitmaps = bitmapsAt(node);
  if (bitmaps.bitmapCount === 0) bitmaps.stop = observe(node, bitmaps);
  bitmaps.bitmapCount += 1;
  bitmaps.list.push({ bitmap });
  return bitmap;
}

/** Ends recording; the bitmap itself stays usable for its owner. */
export function detachBitmap(node: Node, bitmap: DirtyBitmap): void {
  const bitmaps = bitmapsAt(node);
  const { list } = bitmaps;
  const at = list.findIndex((entry) => 'bitmap' in entry && entry.bitmap === bitmap);
  assert(at >= 0, `bitmap belongs to node '${node.name}'`);
  list.splice(at, 1);
  bitmaps.bitmapCount -= 1;
  if (bitmaps.bitmapCount === 0) bitmaps.stop();
}

/** Changing bits; removing it; reading its bits or switching its recording. */
export type BitmapUse = 'change' | 'remove' | 'use';

/** Refuses what users may not do with a bitmap that is busy, read-only or inconsistent. */
export function checkBitmapUsable(bitmap: DirtyBitmap, use: BitmapUse): void {
  const name = bitmap.name ?? '';
  if (bitmap.busy) {
    throw new BlockError(
      'busy',
      `Bitmap '${name}' is currently in use by another operation and cannot be used`,
    );
  }
  if (bitmap.readOnly && use !== 'use') {
    throw new BlockError('read-only', `Bitmap '${name}' is readonly and cannot be modified`);
  }
  if (bitmap.inconsistent && use !== 'remove') {
    throw new BlockError(
      'invalid-state',
      `Bitmap '${name}' is inconsistent and cannot be used`,
      { hint: 'Try block-dirty-bitmap-remove to delete this bitmap from disk' },
    );
  }
}

/** Takes it off the image as well, durably, before the node forgets it. */
export function removeBitmap(node: Node, name: string): Eventually<void> {
  const bitmap = requireBitmap(node, name);
  checkBitmapUsable(bitmap, 'remove');
  if (!bitmap.persistent) {
    detachBitmap(node, bitmap);
    return undefined;
  }
  const release = bitmap.hold('remove');
  return removeStored(node, bitmap)
    .finally(release)
    .then(() => detachBitmap(node, bitmap));
}

/** Takes a persistent bitmap off the image; the node keeps it. */
export async function removeStored(node: Node, bitmap: DirtyBitmap): Promise<void> {
  if (bitmap.persistent) await node.driverNode.bitmapStore?.remove(bitmap.name ?? '');
}

export function clearBitmap(node: Node, name: string): void {
  const bitmap = requireBitmap(node, name);
  checkBitmapUsable(bitmap, 'change');
  bitmap.clearAll();
}

export function setRecording(node: Node, name: string, on: boolean): void {
  const bitmap = requireBitmap(node, name);
  checkBitmapUsable(bitmap, 'use');
  bitmap.enabled = on;
}
