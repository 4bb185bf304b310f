// SPDX-License-Identifier: Apache-2.0
// The cache sizes that a qcow2 node can be given: hints here, but refused where they make no sense,
// with the words of the reference.

import { BlockError } from '../../../base/index.js';
import { SECTOR_SIZE } from './layout.js';
import type { Geometry } from './layout.js';
import type { Qcow2Options } from './options.js';

const MAX_TABLES = 2 ** 31 - 1;
const MAX_INTERVAL_SECONDS = 2 ** 32 - 1;

interface Image {
  readonly geometry: Geometry;
  /** Virtual size in bytes. */
  readonly size: number;
}

/** Bytes of all L2 tables: a larger cache for them is one of that size. */
export function l2TableBytes({ geometry, size }: Image): number {
  return Math.ceil(size / geometry.l2Coverage) * geometry.clusterSize;
}

/** Throws kind `invalid-option`. */
export function checkCacheOptions(options: Qcow2Options, image: Image): void {
  const { clusterSize } = image.geometry;
  const l2Bytes = l2TableBytes(image);
  const refuse = (text: string): never => {
    throw new BlockError('invalid-option', text);
  };
  const l2 = options['l2-cache-size'];
  const refcount = options['refcount-cache-size'];
  const combined = options['cache-size'];
  const entry = options['l2-cache-entry-size'] ?? clusterSize;
  if (combined !== undefined) {
    if (l2 !== undefined && refcount !== undefined) {
      refuse('cache-size, l2-cache-size and refcount-cache-size may not be set at the same time');
    }
    if ((l2 ?? 0) > combined) refuse('l2-cache-size may not exceed cache-size');
    if ((refcount ?? 0) > combined) refuse('refcount-cache-size may not exceed cache-size');
  }
  if (entry < SECTOR_SIZE || entry > clusterSize || !Number.isInteger(Math.log2(entry))) {
    const range = `between ${SECTOR_SIZE} and the cluster size (${clusterSize})`;
    refuse(`L2 cache entry size must be a power of two ${range}`);
  }
  if (Math.min(l2 ?? 0, l2Bytes) / entry > MAX_TABLES) refuse('L2 cache size too big');
  const rest = refcount ?? (combined ?? 0) - (l2 ?? l2Bytes);
  if (rest / clusterSize > MAX_TABLES) refuse('Refcount cache size too big');
  const interval = options['cache-clean-interval'] ?? 0;
  if (interval < 0 || interval > MAX_INTERVAL_SECONDS) refuse('Cache clean interval too big');
}
