// SPDX-License-Identifier: Apache-2.0
// Cluster 0 of an empty image: fixed fields, extensions, the name of the backing file.

import { BlockError, NO_BITS, orBits } from '../../../../base/index.js';
import type { Bits64 } from '../../../../base/index.js';
import {
  encodeCryptHeaderPlace,
  encodeExtensions,
  encodeHeaderFields,
  featureNamesExtension,
} from '../header.js';
import type { CryptHeaderPlace, HeaderExtension } from '../header.js';
import {
  COMPRESSION_TYPE_BIT,
  CompressionType,
  CryptMethod,
  DATA_FILE_BIT,
  EXTENDED_L2_BIT,
  ExtensionType,
  FEATURE_NAMES_MIN_CLUSTER,
  l1EntriesFor,
  LAZY_REFCOUNTS_BIT,
  QCOW2_MAGIC,
  RAW_DATA_FILE_BIT,
  V2_HEADER_LENGTH,
  V3_HEADER_LENGTH,
} from '../layout.js';
import type { HeaderFields } from '../layout.js';
import type { EmptyImage } from './empty-image.js';

/** Throws kind `invalid-option` where the name of the backing file does not fit. */
export function encodeHeaderCluster(
  image: EmptyImage,
  places: {
    readonly l1TableOffset: number;
    readonly tableClusters: number;
    readonly cryptHeader: CryptHeaderPlace | null;
  },
): Uint8Array {
  const { geometry, version } = image;
  const headerLength = version === 2 ? V2_HEADER_LENGTH : V3_HEADER_LENGTH;
  const name = Buffer.from(image.backingFile ?? '', 'utf8');
  const room = geometry.clusterSize - headerLength - name.length;
  const stream = encodeExtensions(extensionsOf(image, places.cryptHeader));
  if (stream.length > room) {
    const text = `Backing file name too long (backing_file_size ${name.length})`;
    throw new BlockError('invalid-option', text);
  }
  const nameOffset = headerLength + stream.length;
  const fields: HeaderFields = {
    magic: QCOW2_MAGIC,
    version,
    backingFileOffset: name.length === 0 ? 0 : nameOffset,
    backingFileSize: name.length,
    clusterBits: geometry.clusterBits,
    size: image.size,
    cryptMethod: cryptMethodOf(image),
    l1Size: l1EntriesFor(image.size, geometry),
    l1TableOffset: places.l1TableOffset,
    refcountTableOffset: geometry.clusterSize,
    refcountTableClusters: places.tableClusters,
    nbSnapshots: 0,
    snapshotsOffset: 0,
    incompatibleFeatures: incompatibleFeaturesOf(image),
    compatibleFeatures: image.lazyRefcounts ? LAZY_REFCOUNTS_BIT : NO_BITS,
    autoclearFeatures: image.dataFileRaw ? RAW_DATA_FILE_BIT : NO_BITS,
    refcountOrder: geometry.refcountOrder,
    headerLength,
    compressionType: image.compressionType,
  };
  const bytes = new Uint8Array(geometry.clusterSize);
  bytes.set(encodeHeaderFields(fields), 0);
  bytes.set(stream, headerLength);
  bytes.set(name, nameOffset);
  return bytes;
}

function incompatibleFeaturesOf({ geometry, compressionType }: EmptyImage): Bits64 {
  let bits = geometry.l2EntryBytes === 16 ? EXTENDED_L2_BIT : NO_BITS;
  if (geometry.dataFile) bits = orBits(bits, DATA_FILE_BIT);
  return compressionType === CompressionType.deflate ? bits : orBits(bits, COMPRESSION_TYPE_BIT);
}

function cryptMethodOf({ encryption }: EmptyImage): number {
  if (encryption === null) return CryptMethod.none;
  return encryption.luks === null ? CryptMethod.aes : CryptMethod.luks;
}

function extensionsOf(
  image: EmptyImage,
  cryptHeader: CryptHeaderPlace | null,
): HeaderExtension[] {
  const extensions: HeaderExtension[] = [];
  if (image.backingFormat !== null) {
    const data = new Uint8Array(Buffer.from(image.backingFormat, 'utf8'));
    extensions.push({ type: ExtensionType.backingFormat, data });
  }
  if (image.dataFile !== null) {
    const data = new Uint8Array(Buffer.from(image.dataFile, 'utf8'));
    extensions.push({ type: ExtensionType.dataFile, data });
  }
  if (cryptHeader !== null) {
    const data = encodeCryptHeaderPlace(cryptHeader);
    extensions.push({ type: ExtensionType.luksHeader, data });
  }
  if (image.version >= 3 && image.geometry.clusterSize >= FEATURE_NAMES_MIN_CLUSTER) {
    extensions.push(featureNamesExtension());
  }
  return extensions;
}
