// SPDX-License-Identifier: Apache-2.0
// How large the file of a new qcow2 image becomes, without making it.
//
// Metadata is counted for all of the virtual size: so the figure for the data that there is now is
// too large rather than too small, and is the reference's.

import { BlockError, IMAGE_LIMITS } from '../../../base/index.js';
import type { MeasuredSize, MeasureSource, SecretSource } from '../../../block/index.js';
import { storedBitmapBytes } from './bitmaps/index.js';
import { newEncryption } from './create/index.js';
import { secretOf } from './encryption/index.js';
import { DEFAULT_CLUSTER_SIZE } from './layout.js';
import type { Qcow2CreateOptions } from './options.js';
import { clusterBitsOf, refcountOrderOf, requireRoomForSubclusters } from './widths.js';

export interface MeasureOptions {
  /** Bytes; the source's length counts where there is a source. */
  readonly size: number;
  readonly 'cluster-size'?: number;
  readonly 'refcount-bits'?: number;
  readonly 'extended-l2'?: boolean;
  readonly 'backing-file'?: string;
  readonly preallocation?: string;
  readonly version?: string;
  readonly encrypt?: NonNullable<Qcow2CreateOptions['encrypt']>;
}

/** Throws kind `invalid-option` or `too-large` in the reference's words. */
export async function measureQcow2(
  options: MeasureOptions,
  source: MeasureSource | null,
  context: SecretContext = {},
): Promise<MeasuredSize> {
  const clusterSize = options['cluster-size'] ?? DEFAULT_CLUSTER_SIZE;
  requireOptions(options, clusterSize);
  const length = source?.length ?? options.size;
  const virtualSize = Math.ceil(length / clusterSize) * clusterSize;
  const entryBytes = options['extended-l2'] === true ? 16 : 8;
  const tables = Math.ceil(virtualSize / clusterSize / (clusterSize / entryBytes));
  if (tables * 8 > IMAGE_LIMITS.qcow2L1Bytes) {
    const text = 'The image size is too large (try using a larger cluster size)';
    throw new BlockError('too-large', text);
  }
  const refcountBits = options['refcount-bits'] ?? 16;
  const full = fullSize(virtualSize, { clusterSize, entryBytes, refcountBits });
  const mode = options.preallocation ?? 'off';
  let data = 0;
  if (mode === 'full' || mode === 'falloc') data = virtualSize;
  else if (source !== null) {
    const keepsAll = options['backing-file'] !== undefined;
    data = keepsAll ? virtualSize : await dataBytes(source, clusterSize);
  }
  const crypt = cryptBytes(context, options, clusterSize);
  const sizes = {
    required: full - virtualSize + data + crypt,
    fullyAllocated: full + crypt,
  };
  const bitmaps = options.version === 'v2' ? null : (source?.bitmaps ?? null);
  return bitmaps === null ? sizes : { ...sizes, bitmaps: storedBitmapBytes(bitmaps, clusterSize) };
}

/** Clusters of the LUKS header, which the reference adds behind all. Throws without its secret. */
function cryptBytes(
  context: SecretContext,
  options: MeasureOptions,
  clusterSize: number,
): number {
  const encryption = newEncryption(options);
  if (encryption === null || encryption.luks === null) return 0;
  secretOf(context, options.encrypt?.['key-secret']).fill(0);
  return Math.ceil(encryption.headerBytes / clusterSize) * clusterSize;
}

function requireOptions(options: MeasureOptions, clusterSize: number): void {
  const clusterBits = clusterBitsOf(clusterSize);
  const mode = options.preallocation ?? 'off';
  if (!['off', 'metadata', 'falloc', 'full'].includes(mode)) {
    throw invalid(`invalid parameter value: ${mode}`);
  }
  const refcountBits = options['refcount-bits'] ?? 16;
  refcountOrderOf(refcountBits);
  if (options.version === 'v2' && refcountBits !== 16) {
    throw invalid(
      'Different refcount widths than 16 bits require compatibility level 1.1 or above ' +
        '(use compat=1.1 or greater)',
    );
  }
  if (options['extended-l2'] === true) requireRoomForSubclusters(clusterBits);
}

function invalid(message: string): BlockError {
  return new BlockError('invalid-option', message);
}

interface SecretContext {
  readonly secret?: SecretSource;
}

interface Widths {
  readonly clusterSize: number;
  readonly entryBytes: number;
  readonly refcountBits: number;
}

/** Bytes of an image in which every cluster is allocated. */
function fullSize(virtualSize: number, widths: Widths): number {
  const { clusterSize, entryBytes } = widths;
  const inWhole = (count: number, unit: number): number => Math.ceil(count / unit) * unit;
  const l2Entries = inWhole(virtualSize / clusterSize, clusterSize / entryBytes);
  const l1Entries = inWhole((l2Entries * entryBytes) / clusterSize, clusterSize / 8);
  const tables = clusterSize + l2Entries * entryBytes + l1Entries * 8;
  const clusters = (tables + virtualSize) / clusterSize;
  return tables + virtualSize + refcountClusters(clusters, widths) * clusterSize;
}

/** Clusters of the refcount table and its blocks, which count themselves as well. */
function refcountClusters(clusters: number, { clusterSize, refcountBits }: Widths): number {
  const perBlock = (clusterSize * 8) / refcountBits;
  const perTableCluster = clusterSize / 8;
  let total = 0;
  for (let last = -1; total !== last; ) {
    last = total;
    const blocks = Math.ceil((clusters + total) / perBlock);
    total = blocks + Math.ceil(blocks / perTableCluster);
  }
  return total;
}

/** Bytes of the clusters in which the source has data. */
async function dataBytes(source: MeasureSource, clusterSize: number): Promise<number> {
  let bytes = 0;
  for (let offset = 0; offset < source.length; ) {
    const found = source.next(offset);
    const { data, length } = found instanceof Promise ? await found : found;
    const end = data ? Math.ceil((offset + length) / clusterSize) * clusterSize : offset + length;
    if (data) bytes += (offset % clusterSize) + end - offset;
    offset = end;
  }
  return bytes;
}
