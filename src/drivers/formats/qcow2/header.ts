// SPDX-License-Identifier: Apache-2.0
// Cluster 0 of a qcow2 image: decoding with every check, and encoding of the header area.
//
// Source: the qcow2 format description ("Header", "Header extensions"). Nothing is allocated from
// a number of the image before it was compared with its limit and with the length of the file.
// What the image says is decoded even where this program does not support it (features.ts decides
// that); only what no reader could use is an error here.

import {
  andBits,
  bitNumbers,
  BlockError,
  decodeStruct,
  encodeStruct,
  escapeControls,
  hasAny,
  hasBit,
  hexBits,
  IMAGE_LIMITS,
  MAX_OFFSET,
  validateStruct,
  withoutBits,
} from '../../../base/index.js';
import type { Bits64 } from '../../../base/index.js';
import type { ClusterCodec } from '../../../codec/index.js';
import {
  Autoclear,
  BITMAPS_EXTENSION,
  COMPRESSION_TYPE_OFFSET,
  CompressionType,
  CRYPT_EXTENSION,
  CryptMethod,
  EXTENSION_HEADER_SIZE,
  ExtensionType,
  FEATURE_ENTRY_SIZE,
  FEATURE_NAME_OFFSET,
  FEATURE_NAMES,
  FeatureType,
  geometryOf,
  HEADER,
  Incompatible,
  KNOWN_INCOMPATIBLE,
  l1EntriesFor,
  V2_HEADER_LENGTH,
} from './layout.js';
import type { Geometry, HeaderFields } from './layout.js';

/** One header extension as it is on disk; the end marker is not among them. */
export interface HeaderExtension {
  readonly type: number;
  readonly data: Uint8Array;
}

export interface Qcow2Header {
  readonly fields: HeaderFields;
  readonly geometry: Geometry;
  /** In their order on disk. */
  readonly extensions: readonly HeaderExtension[];
  /** First byte of cluster 0 behind the end marker. */
  readonly extensionsEnd: number;
  readonly backingFile: string | null;
  /** From the backing format extension; null when there is none. */
  readonly backingFormat: string | null;
  /** Name of the external data file; null when the header has none. */
  readonly dataFile: string | null;
  /** The data file holds what the guest sees. */
  readonly dataFileRaw: boolean;
  /** Null where there are no persistent bitmaps, or none that can be trusted. */
  readonly bitmaps: BitmapsPlace | null;
  /** The clusters with the LUKS header; null where there is none. */
  readonly cryptHeader: CryptHeaderPlace | null;
  /** Says which top-level table the file ends before; null when all are there. */
  readonly truncated: string | null;
  /** That is the refcount table and no other. */
  readonly lacksRefcounts: boolean;
}

/** Bytes of the file, from the start of a cluster on. */
export interface CryptHeaderPlace {
  readonly offset: number;
  readonly length: number;
}

/** The bitmap directory. */
export interface BitmapsPlace {
  readonly count: number;
  readonly offset: number;
  /** Bytes. */
  readonly size: number;
}

/** Bytes that peekClusterSize and the fixed header need; a shorter file is padded with zeroes. */
export const HEADER_PEEK_BYTES = 112;

/** `detail`: field and value, which the reference does not print. */
function corrupt(text: string, detail?: string): BlockError {
  if (detail === undefined) return new BlockError('corrupt-image', text);
  return new BlockError('corrupt-image', `${text} (${detail})`, { detail });
}

interface Peek {
  readonly fields: HeaderFields;
  readonly geometry: Geometry;
}

/** The fixed fields, checked one by one and against each other, from the first 112 bytes. */
export function decodeHeaderFields(head: Uint8Array): Peek {
  const view = new DataView(head.buffer, head.byteOffset, head.byteLength);
  const version = view.getUint32(4);
  const extent = { version, length: HEADER_PEEK_BYTES };
  // Magic and version decide whether the other bytes mean anything at all, and a cluster size that
  // cannot be is told before an offset that cannot.
  const clusterBits = view.getUint32(20);
  validateStruct(HEADER, { magic: view.getUint32(0), version, clusterBits }, extent);
  const decoded = decodeStruct(HEADER, head, extent);
  validateStruct(HEADER, decoded, extent);
  const covered = version >= 3 && decoded.headerLength > COMPRESSION_TYPE_OFFSET;
  const compressionType = covered ? (head[COMPRESSION_TYPE_OFFSET] ?? 0) : 0;
  // Without a backing file the length of its name is undefined.
  const backingFileSize = decoded.backingFileOffset === 0 ? 0 : decoded.backingFileSize;
  const fields = { ...decoded, backingFileSize, compressionType };
  const extended = hasBit(fields.incompatibleFeatures, Incompatible.extendedL2);
  const dataFile = hasBit(fields.incompatibleFeatures, Incompatible.externalDataFile);
  const geometry = geometryOf(fields.clusterBits, fields.refcountOrder, extended);
  return { fields, geometry: { ...geometry, dataFile } };
}

/**
 * Everything in cluster 0. `head` holds its first min(clusterSize, fileLength) bytes, zero padded
 * to 112; `fileLength` is in bytes.
 */
export function decodeHeader(head: Uint8Array, fileLength: number): Qcow2Header {
  const { fields, geometry } = decodeHeaderFields(head);
  if (fields.headerLength > geometry.clusterSize) {
    throw corrupt('qcow2 header exceeds cluster size', `header_length ${fields.headerLength}`);
  }
  checkBackingPlace(fields, geometry.clusterSize, head.length);
  const { extensions, end } = decodeExtensions(head, fields, geometry.clusterSize);
  checkFeatures(fields, extensions);
  const { truncated, lacksRefcounts } = checkTables(fields, geometry, fileLength);
  const format = extensions.find(({ type }) => type === ExtensionType.backingFormat);
  const dataFile = extensions.find(({ type }) => type === ExtensionType.dataFile);
  const { backingFileOffset: from, backingFileSize: size } = fields;
  return {
    fields,
    geometry,
    extensions,
    extensionsEnd: end,
    backingFile: from === 0 || size === 0 ? null : text(head.subarray(from, from + size)),
    backingFormat: format === undefined ? null : text(format.data),
    dataFile: dataFile === undefined ? null : text(dataFile.data),
    dataFileRaw: hasBit(fields.autoclearFeatures, Autoclear.rawExternalData),
    bitmaps: bitmapsPlace(extensions, fields, geometry.clusterSize),
    cryptHeader: cryptHeaderPlace(extensions, fields, { geometry, fileLength }),
    truncated,
    lacksRefcounts,
  };
}

function text(bytes: Uint8Array): string {
  const end = bytes.indexOf(0);
  return Buffer.from(end < 0 ? bytes : bytes.subarray(0, end)).toString('utf8');
}

function checkBackingPlace(fields: HeaderFields, clusterSize: number, available: number): void {
  const { backingFileOffset: offset, backingFileSize: size } = fields;
  if (offset === 0) return;
  const first = Math.max(V2_HEADER_LENGTH, fields.headerLength);
  if (offset < first || offset > clusterSize) {
    throw corrupt('Invalid backing file offset', `backing_file_offset ${offset}`);
  }
  if (size > Math.min(IMAGE_LIMITS.backingNameBytes, clusterSize - offset)) {
    throw corrupt('Backing file name too long', `backing_file_size ${size}`);
  }
  if (offset + size > available) {
    const text = 'Backing file name is beyond the end of the file';
    throw corrupt(text, `backing_file_offset ${offset}`);
  }
}

function decodeExtensions(
  head: Uint8Array,
  fields: HeaderFields,
  clusterSize: number,
): { extensions: HeaderExtension[]; end: number } {
  const limit = fields.backingFileOffset === 0 ? clusterSize : fields.backingFileOffset;
  const view = new DataView(head.buffer, head.byteOffset, head.byteLength);
  const extensions: HeaderExtension[] = [];
  let offset = fields.headerLength;
  while (offset + EXTENSION_HEADER_SIZE <= Math.min(limit, head.length)) {
    const type = view.getUint32(offset);
    const length = view.getUint32(offset + 4);
    offset += EXTENSION_HEADER_SIZE;
    if (type === ExtensionType.end) return { extensions, end: offset };
    if (length > limit - offset || length > head.length - offset) {
      const name = `0x${type.toString(16).padStart(8, '0')}`;
      throw corrupt('Header extension too large', `extension ${name} length ${length}`);
    }
    if (extensions.length >= IMAGE_LIMITS.qcow2HeaderExtensions) {
      throw corrupt(`Too many header extensions (more than ${extensions.length})`);
    }
    if (type === ExtensionType.backingFormat && length > IMAGE_LIMITS.backingFormatBytes) {
      throw corrupt(`ERROR: ext_backing_format: len=${length} too large (>=16)`);
    }
    extensions.push({ type, data: head.slice(offset, offset + length) });
    offset += Math.ceil(length / 8) * 8;
  }
  return { extensions, end: Math.min(offset, limit) };
}

function checkFeatures(fields: HeaderFields, extensions: readonly HeaderExtension[]): void {
  const unknown = withoutBits(fields.incompatibleFeatures, KNOWN_INCOMPATIBLE);
  if (hasAny(unknown, unknown)) {
    const names = featureNames(FeatureType.incompatible, unknown, extensions);
    const detail = `incompatible_features 0x${hexBits(fields.incompatibleFeatures)}`;
    const text = `Unsupported qcow2 feature(s): ${names} (${detail})`;
    throw new BlockError('unsupported', text, { detail });
  }
  const bit = hasBit(fields.incompatibleFeatures, Incompatible.compressionType);
  const { compressionType } = fields;
  if (compressionType > 1) {
    throw new BlockError(
      'unsupported',
      `qcow2: unknown compression type: ${compressionType} (compression_type ${compressionType})`,
      { detail: `compression_type ${compressionType}` },
    );
  }
  if (bit !== (compressionType !== 0)) {
    const wish = bit ? 'must not be set' : 'must be set';
    throw corrupt(
      `qcow2: Compression type incompatible feature bit ${wish}`,
      `compression_type ${compressionType}`,
    );
  }
}

/** Names from the image's own feature table; bits without a name as one number. */
export function featureNames(
  type: number,
  bits: Bits64,
  extensions: readonly HeaderExtension[],
): string {
  const names: string[] = [];
  let rest = bits;
  const table = extensions.find((extension) => extension.type === ExtensionType.featureNames);
  const data = table?.data ?? new Uint8Array(0);
  // The last entry may be cut short: what is there of its name counts, as in the reference.
  for (let at = 0; at + FEATURE_NAME_OFFSET < data.length; at += FEATURE_ENTRY_SIZE) {
    const number = data[at + 1] ?? 0;
    if (data[at] !== type || number > 63 || !hasBit(rest, number)) continue;
    const bit = withoutBits(rest, andBits(rest, bitOf(number)));
    const stored = data.subarray(at + FEATURE_NAME_OFFSET, at + FEATURE_ENTRY_SIZE);
    const name = escapeControls(text(stored));
    if (name === '') continue;
    names.push(name);
    rest = bit;
  }
  if (bitNumbers(rest).length > 0) names.push(`Unknown incompatible feature: ${hexBits(rest)}`);
  return names.join(', ');
}

function bitOf(number: number): Bits64 {
  return number >= 32
    ? { hi: (1 << (number - 32)) >>> 0, lo: 0 }
    : { hi: 0, lo: (1 << number) >>> 0 };
}

interface TablePlace {
  readonly name: string;
  readonly field: string;
  readonly offset: number;
  readonly bytes: number;
  readonly alignment: number;
}

/**
 * Throws for a place that no file can have; says when this file ends before it. A table without
 * entries may lie anywhere, but not inside a cluster.
 */
function checkPlace(place: TablePlace, fileLength: number): string | null {
  const { name, field, offset, bytes, alignment } = place;
  if ((offset === 0 && bytes > 0) || offset % alignment !== 0 || offset > MAX_OFFSET - bytes) {
    throw corrupt(`${name} offset invalid`, `${field} ${offset}`);
  }
  if (bytes === 0 || offset + bytes <= fileLength) return null;
  return (
    `${name} is beyond the end of the file (${field} ${offset}, ${bytes} bytes, ` +
    `file length ${fileLength})`
  );
}

function checkTables(
  fields: HeaderFields,
  geometry: Geometry,
  fileLength: number,
): Pick<Qcow2Header, 'truncated' | 'lacksRefcounts'> {
  const { clusterSize } = geometry;
  const tableBytes = fields.refcountTableClusters * clusterSize;
  if (tableBytes > IMAGE_LIMITS.qcow2RefcountTableBytes) {
    const detail = `refcount_table_clusters ${fields.refcountTableClusters}`;
    throw corrupt('Reference count table too large', detail);
  }
  const table = { name: 'Reference count table', field: 'refcount_table_offset' };
  const offset = fields.refcountTableOffset;
  const place = { ...table, offset, bytes: tableBytes, alignment: clusterSize };
  const noRefcounts = checkPlace(place, fileLength);

  const entries = l1EntriesFor(fields.size, geometry);
  if (entries * 8 > IMAGE_LIMITS.qcow2L1Bytes) {
    throw corrupt('Image is too big', `size ${fields.size}`);
  }
  if (fields.l1Size < entries) {
    throw corrupt('L1 table is too small', `l1_size ${fields.l1Size}, size ${fields.size}`);
  }
  const l1 = { name: 'Active L1 table', field: 'l1_table_offset', offset: fields.l1TableOffset };
  const l1Bytes = fields.l1Size * 8;
  const noL1 = checkPlace({ ...l1, bytes: l1Bytes, alignment: clusterSize }, fileLength);
  const snapshots = { name: 'Snapshot table', field: 'snapshots_offset', alignment: clusterSize };
  // Each entry has at least its 40 fixed bytes.
  const bytes = fields.nbSnapshots * 40;
  const reason = checkPlace({ ...snapshots, offset: fields.snapshotsOffset, bytes }, fileLength);
  if (reason !== null) throw corrupt(reason);
  return { truncated: noRefcounts ?? noL1, lacksRefcounts: noRefcounts !== null && noL1 === null };
}

/** Its length is bounded, and so is what is looked at of it. */
function cryptHeaderPlace(
  extensions: readonly HeaderExtension[],
  fields: HeaderFields,
  { geometry, fileLength }: { readonly geometry: Geometry; readonly fileLength: number },
): CryptHeaderPlace | null {
  const { cryptMethod } = fields;
  const found = extensions.filter(({ type }) => type === ExtensionType.luksHeader);
  const data = found[0]?.data;
  if (data === undefined) {
    if (cryptMethod !== CryptMethod.luks) return null;
    throw corrupt(`Missing CRYPTO header for crypt method ${cryptMethod}`);
  }
  if (found.length > 1) throw corrupt(`${found.length} CRYPTO header extensions`);
  if (cryptMethod !== CryptMethod.luks) {
    const text = 'CRYPTO header extension only expected with LUKS encryption method';
    throw corrupt(text, `crypt_method ${cryptMethod}`);
  }
  const { size } = CRYPT_EXTENSION;
  if (data.length !== size) {
    throw corrupt(`CRYPTO header extension size ${data.length}, but expected size ${size}`);
  }
  const extent = { version: 3, length: size };
  const place = decodeStruct(CRYPT_EXTENSION, data, extent);
  const { offset, length } = place;
  if (offset % geometry.clusterSize !== 0) {
    throw corrupt(
      `Encryption header offset '${offset}' is not a multiple of cluster size ` +
        `'${geometry.clusterSize}'`,
    );
  }
  if (offset === 0 || length === 0 || length > IMAGE_LIMITS.qcow2CryptHeaderBytes) {
    throw corrupt(`Encryption header of ${length} bytes at offset ${offset} cannot be`);
  }
  if (offset + length > fileLength) {
    const text = 'Encryption header is beyond the end of the file';
    throw corrupt(`${text} (offset ${offset}, length ${length}, file length ${fileLength})`);
  }
  requireApart({ offset, length }, fields, geometry);
  return { offset, length };
}

/** Keyslots that change are written over whatever lies in their place. */
function requireApart(
  { offset, length }: CryptHeaderPlace,
  fields: HeaderFields,
  { clusterSize }: Geometry,
): void {
  const tables = [
    ['active L1 table', fields.l1TableOffset, fields.l1Size * 8],
    ['refcount table', fields.refcountTableOffset, fields.refcountTableClusters * clusterSize],
    ['snapshot table', fields.snapshotsOffset, fields.nbSnapshots * 40],
  ] as const;
  for (const [name, start, bytes] of tables) {
    if (bytes === 0 || start >= offset + length || offset >= start + bytes) continue;
    throw corrupt(
      `Encryption header overlaps the ${name}`,
      `offset ${offset}, length ${length}, table at ${start}`,
    );
  }
}

export function encodeCryptHeaderPlace(place: CryptHeaderPlace): Uint8Array {
  const length = CRYPT_EXTENSION.size;
  const bytes = new Uint8Array(length);
  encodeStruct(CRYPT_EXTENSION, place, { bytes, version: 3, length });
  return bytes;
}

/** Where the autoclear bit is unset, somebody wrote who did not keep the bitmaps. */
function bitmapsPlace(
  extensions: readonly HeaderExtension[],
  fields: HeaderFields,
  clusterSize: number,
): BitmapsPlace | null {
  const found = extensions.find(({ type }) => type === ExtensionType.bitmaps);
  if (found === undefined) return null;
  if (found.data.length !== BITMAPS_EXTENSION.size) {
    throw corrupt('bitmaps_ext: Invalid extension length', `length ${found.data.length}`);
  }
  if (!hasBit(fields.autoclearFeatures, Autoclear.bitmaps)) return null;
  const extent = { version: 3, length: found.data.length };
  const value = decodeStruct(BITMAPS_EXTENSION, found.data, extent);
  validateStruct(BITMAPS_EXTENSION, value, extent);
  const { nbBitmaps: count, directoryOffset: offset, directorySize: size } = value;
  if (offset % clusterSize !== 0 || offset > MAX_OFFSET - size) {
    throw corrupt('bitmaps_ext: invalid bitmap directory offset', `directory_offset ${offset}`);
  }
  return { count, offset, size };
}

/** The payload of the extension that names this directory. */
export function encodeBitmapsPlace({ count, offset, size }: BitmapsPlace): Uint8Array {
  const length = BITMAPS_EXTENSION.size;
  const bytes = new Uint8Array(length);
  const value = { nbBitmaps: count, reserved: 0, directorySize: size, directoryOffset: offset };
  encodeStruct(BITMAPS_EXTENSION, value, { bytes, version: 3, length });
  return bytes;
}

/** What a guest sees of `size`, in bytes: the format counts in sectors of 512. */
export function virtualSizeOf(header: Qcow2Header): number {
  return header.fields.size - (header.fields.size % 512);
}

/** How its compressed clusters are stored. */
export function codecOf(header: Qcow2Header): ClusterCodec {
  return header.fields.compressionType === CompressionType.zstd ? 'zstd' : 'deflate';
}

/** The known fixed fields as they are written at offset 0: 72, 104 or 112 bytes, in one sector. */
export function encodeHeaderFields(fields: HeaderFields): Uint8Array {
  const covered = fields.version >= 3 && fields.headerLength > COMPRESSION_TYPE_OFFSET;
  const length = covered ? COMPRESSION_TYPE_OFFSET + 1 : fields.headerLength;
  const bytes = new Uint8Array(Math.min(length, HEADER_PEEK_BYTES));
  encodeStruct(HEADER, fields, { bytes, version: fields.version, length: bytes.length });
  if (covered) bytes[COMPRESSION_TYPE_OFFSET] = fields.compressionType;
  return bytes;
}

/** What every bit that this program knows is called, for readers that do not know it. */
export function featureNamesExtension(): HeaderExtension {
  const data = new Uint8Array(FEATURE_NAMES.length * FEATURE_ENTRY_SIZE);
  FEATURE_NAMES.forEach(({ type, bit, name }, index) => {
    const at = index * FEATURE_ENTRY_SIZE;
    data[at] = type;
    data[at + 1] = bit;
    data.set(Buffer.from(name, 'latin1'), at + FEATURE_NAME_OFFSET);
  });
  return { type: ExtensionType.featureNames, data };
}

/** Extensions one after another, each padded to 8 bytes, with the end marker. */
export function encodeExtensions(extensions: readonly HeaderExtension[]): Uint8Array {
  let length = EXTENSION_HEADER_SIZE;
  for (const { data } of extensions) {
    length += EXTENSION_HEADER_SIZE + Math.ceil(data.length / 8) * 8;
  }
  const bytes = new Uint8Array(length);
  const view = new DataView(bytes.buffer);
  let offset = 0;
  for (const { type, data } of extensions) {
    view.setUint32(offset, type);
    view.setUint32(offset + 4, data.length);
    bytes.set(data, offset + EXTENSION_HEADER_SIZE);
    offset += EXTENSION_HEADER_SIZE + Math.ceil(data.length / 8) * 8;
  }
  return bytes;
}
