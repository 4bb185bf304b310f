// SPDX-License-Identifier: Apache-2.0
// Sizes that creating, measuring and amending take from options: refused in the same words.

import { BlockError } from '../../../base/index.js';
import { MAX_CLUSTER_BITS, MIN_CLUSTER_BITS, MIN_EXTENDED_CLUSTER_BITS } from './layout.js';

/** Log2 of a cluster size in bytes. Throws kind `invalid-option`. */
export function clusterBitsOf(clusterSize: number): number {
  const bits = Math.log2(clusterSize);
  if (Number.isInteger(bits) && bits >= MIN_CLUSTER_BITS && bits <= MAX_CLUSTER_BITS) return bits;
  throw invalid('Cluster size must be a power of two between 512 and 2048k');
}

/** Log2 of the bits of a refcount. Throws kind `invalid-option`. */
export function refcountOrderOf(refcountBits: number): number {
  const order = Math.log2(refcountBits);
  if (Number.isInteger(order) && order >= 0 && order <= 6) return order;
  throw invalid('Refcount width must be a power of two and may not exceed 64 bits');
}

/** Subclusters have at least a sector. Throws kind `invalid-option`. */
export function requireRoomForSubclusters(clusterBits: number): void {
  if (clusterBits >= MIN_EXTENDED_CLUSTER_BITS) return;
  throw invalid(
    'Extended L2 entries are only supported with cluster sizes of at least ' +
      `${2 ** MIN_EXTENDED_CLUSTER_BITS} bytes`,
  );
}

function invalid(message: string): BlockError {
  return new BlockError('invalid-option', message);
}
