// SPDX-License-Identifier: Apache-2.0
// One compressed cluster in either of the two ways that qcow2 knows.
//
// loadCodec() comes before the others; for deflate there is nothing to wait for.

import { deflateCluster, inflateCluster } from './deflate.js';
import { loadZstd, unzstdCluster, zstdCluster } from './zstd.js';

export type ClusterCodec = 'deflate' | 'zstd';

/** Nothing to wait for when the codec is there already. */
export function loadCodec(codec: ClusterCodec): Promise<void> | undefined {
  return codec === 'zstd' ? loadZstd() : undefined;
}

/** The compressed form of a cluster, or null when it takes more than `maxLength` bytes. */
export function packCluster(
  codec: ClusterCodec,
  input: Uint8Array,
  maxLength: number,
): Uint8Array | null {
  return codec === 'zstd' ? zstdCluster(input, maxLength) : deflateCluster(input, maxLength);
}

/** The `outputLength` bytes of a compressed cluster; throws kind `corrupt-image`. */
export function unpackCluster(
  codec: ClusterCodec,
  input: Uint8Array,
  outputLength: number,
): Uint8Array {
  return codec === 'zstd'
    ? unzstdCluster(input, outputLength)
    : inflateCluster(input, outputLength);
}
