// SPDX-License-Identifier: Apache-2.0
// The options of a new image as facts, with every reason to refuse them. Pure: no I/O.

import { BlockError, IMAGE_LIMITS, MAX_OFFSET } from '../../../../base/index.js';
import { requireShortFormat } from '../header-update.js';
import {
  CompressionType,
  DEFAULT_CLUSTER_SIZE,
  geometryOf,
  l1EntriesFor,
} from '../layout.js';
import type { Geometry } from '../layout.js';
import type { Qcow2CreateOptions } from '../options.js';
import { clusterBitsOf, refcountOrderOf, requireRoomForSubclusters } from '../widths.js';
import { newEncryption } from './encryption.js';
import type { NewEncryption } from './encryption.js';

/** Everything that decides the bytes of an empty image. */
export interface EmptyImage {
  readonly size: number;
  readonly version: 2 | 3;
  readonly geometry: Geometry;
  readonly lazyRefcounts: boolean;
  /** Of clusters that will be written compressed. */
  readonly compressionType: number;
  readonly backingFile: string | null;
  readonly backingFormat: string | null;
  /** Other than `off`: every guest cluster has its data cluster. */
  readonly preallocation: Preallocation;
  /** Name of the external data file, as the header has it. */
  readonly dataFile: string | null;
  readonly dataFileRaw: boolean;
  readonly encryption: NewEncryption | null;
}

export type Preallocation = 'off' | 'metadata' | 'falloc' | 'full';

/** The options as facts of an image, every refusal in the reference's words where it has some. */
export function emptyImage(options: Qcow2CreateOptions): EmptyImage {
  const version = options.version === 'v2' ? 2 : 3;
  const { size } = options;
  const clusterSize = options['cluster-size'] ?? DEFAULT_CLUSTER_SIZE;
  const clusterBits = clusterBitsOf(clusterSize);
  if (size % 512 !== 0) throw invalid('Image size must be a multiple of 512 bytes');
  const extendedL2 = options['extended-l2'] === true;
  if (extendedL2) requireExtendedL2(version, clusterBits);
  const refcountBits = options['refcount-bits'] ?? 16;
  const refcountOrder = refcountOrderOf(refcountBits);
  if (version < 3 && refcountBits !== 16) {
    throw invalid(
      'Different refcount widths than 16 bits require compatibility level 1.1 or above ' +
        '(use version=v3 or greater)',
    );
  }
  const lazyRefcounts = options['lazy-refcounts'] === true;
  if (version < 3 && lazyRefcounts) {
    throw invalid(
      'Lazy refcounts only supported with compatibility level 1.1 and above ' +
        '(use version=v3 or greater)',
    );
  }
  const compressionType = compressionTypeOf(options, version);
  const geometry = geometryOf(clusterBits, refcountOrder, extendedL2);
  if (size > MAX_OFFSET || l1EntriesFor(size, geometry) * 8 > IMAGE_LIMITS.qcow2L1Bytes) {
    throw new BlockError(
      'too-large',
      "The image size is too large for file format 'qcow2' (try using a larger cluster size)",
    );
  }
  const external = dataFileOptions(options, version);
  const preallocation = options.preallocation ?? 'off';
  if (preallocation !== 'off') {
    if (options['backing-file'] !== undefined && !extendedL2) {
      throw invalid(
        'Backing file and preallocation can only be used at the same time ' +
          'if extended_l2 is on',
      );
    }
    if (external.dataFile === null) refuseBeyondTable(size, geometry);
  }
  const encryption = newEncryption(options);
  if (encryption !== null) requireEncryptable({ version, preallocation, ...external });
  const facts = { size, version, lazyRefcounts, compressionType, encryption, ...external } as const;
  return {
    ...facts,
    ...backing(options),
    geometry: { ...geometry, dataFile: external.dataFile !== null },
    // What a raw data file holds must be seen: every cluster is data.
    preallocation: external.dataFileRaw && preallocation === 'off' ? 'metadata' : preallocation,
  };
}

function dataFileOptions(
  options: Qcow2CreateOptions,
  version: 2 | 3,
): Pick<EmptyImage, 'dataFile' | 'dataFileRaw'> {
  const dataFileRaw = options['data-file-raw'] === true;
  const isExternal = options['data-file'] !== undefined;
  if (dataFileRaw && !isExternal) throw invalid('data-file-raw requires data-file');
  if (dataFileRaw && options['backing-file'] !== undefined) {
    throw invalid('Backing file and data-file-raw cannot be used at the same time');
  }
  if (isExternal && version < 3) {
    throw invalid(
      'External data files are only supported with compatibility level 1.1 and above ' +
        '(use version=v3 or greater)',
    );
  }
  // The name is that of the node, which is there only once the file may be touched.
  return { dataFile: isExternal ? '' : null, dataFileRaw };
}

function compressionTypeOf(options: Qcow2CreateOptions, version: 2 | 3): number {
  if (options['compression-type'] !== 'zstd') return CompressionType.deflate;
  if (version >= 3) return CompressionType.zstd;
  throw invalid(
    'Non-zlib compression type is only supported with compatibility level 1.1 and above ' +
      '(use version=v3 or greater)',
  );
}

/** Extended L2 entries exist since version 3. */
function requireExtendedL2(version: 2 | 3, clusterBits: number): void {
  if (version >= 3) return requireRoomForSubclusters(clusterBits);
  throw invalid(
    'Extended L2 entries are only supported with compatibility level 1.1 and above ' +
      '(use version=v3 or greater)',
  );
}

/** The refcount table of a full image must not be larger than one that can be opened. */
function refuseBeyondTable(size: number, geometry: Geometry): void {
  const entries = Math.ceil(size / geometry.clusterSize / geometry.refcountBlockEntries);
  if (entries * 8 * 2 <= IMAGE_LIMITS.qcow2RefcountTableBytes) return;
  throw new BlockError(
    'too-large',
    "The image size is too large to be preallocated in format 'qcow2' " +
      '(try using a larger cluster size)',
  );
}

function backing(
  options: Qcow2CreateOptions,
): Pick<EmptyImage, 'backingFile' | 'backingFormat'> {
  const backingFile = options['backing-file'] ?? null;
  const backingFormat = options['backing-fmt'] ?? null;
  if (backingFormat !== null && backingFile === null) {
    throw invalid('Backing format cannot be used without backing file');
  }
  requireShortFormat(backingFormat);
  if (backingFile !== null) {
    const bytes = Buffer.byteLength(backingFile, 'utf8');
    if (bytes > IMAGE_LIMITS.backingNameBytes) throw invalid('Backing file name too long');
  }
  return { backingFile, backingFormat };
}

/**
 * Zeroes of a file are none to a guest whose data is encrypted: what is set aside must be said to
 * read as zeroes, which version 2 cannot say, nor a data file that is to be read as it is.
 */
function requireEncryptable(
  image: Pick<EmptyImage, 'version' | 'preallocation' | 'dataFileRaw'>,
): void {
  if (image.dataFileRaw) throw invalid('Encryption and data-file-raw cannot be used together');
  if (image.version >= 3 || image.preallocation === 'off') return;
  throw invalid(
    'Preallocation of encrypted images is only supported with compatibility level 1.1 and above ' +
      '(use version=v3 or greater)',
  );
}

function invalid(message: string): BlockError {
  return new BlockError('invalid-option', message);
}
