// SPDX-License-Identifier: Apache-2.0
// The bitmap directory: one entry for each persistent bitmap, as bytes and as what they say.
//
// Source: the qcow2 format description ("Bitmap directory"). Every field is compared with its
// limit before anything is made of it; the bytes are kept, so that flags change where they stand.

import {
  BlockError,
  decodeStruct,
  encodeStruct,
  escapeControls,
  IMAGE_LIMITS,
  validateStruct,
} from '../../../../base/index.js';
import { readRequest } from '../../../../block/index.js';
import type { MeasuredBitmap, Node } from '../../../../block/index.js';
import type { BitmapsPlace, Qcow2Header } from '../header.js';
import { BITMAP_ENTRY, BITMAP_FLAGS_OFFSET, BitmapFlag } from '../layout.js';

export interface BitmapEntry {
  readonly name: string;
  /** As on disk. */
  readonly nameBytes: Uint8Array;
  readonly tableOffset: number;
  /** Entries. */
  readonly tableSize: number;
  readonly granularityBits: number;
  readonly flags: number;
}

/** Member of `bitmaps` in the format-specific information. */
export interface BitmapFacts {
  readonly flags: readonly string[];
  readonly name: string;
  /** Bytes. */
  readonly granularity: number;
}

/** Sizes that entries are held against. */
export interface DirectoryBounds {
  readonly clusterSize: number;
  /** Virtual size in bytes. */
  readonly size: number;
}

export function isInUse({ flags }: BitmapEntry): boolean {
  return (flags & BitmapFlag.inUse) !== 0;
}

export function isAuto({ flags }: BitmapEntry): boolean {
  return (flags & BitmapFlag.auto) !== 0;
}

export function factsOf(entry: BitmapEntry): BitmapFacts {
  const flags = [...(isInUse(entry) ? ['in-use'] : []), ...(isAuto(entry) ? ['auto'] : [])];
  return { flags, name: entry.name, granularity: 2 ** entry.granularityBits };
}

/** Clusters that the bits of a node of `size` bytes take. */
export function clustersOfBits(
  { size, clusterSize }: DirectoryBounds,
  granularity: number,
): number {
  return Math.ceil(Math.ceil(size / granularity) / (clusterSize * 8));
}

/** Bytes of an entry whose name has so many. */
export function entryBytes(nameBytes: number): number {
  return Math.ceil((BITMAP_ENTRY.size + nameBytes) / 8) * 8;
}

/** Kind `corrupt-image` where the file ends before it. */
export async function readDirectory(file: Node, place: BitmapsPlace): Promise<Uint8Array> {
  if (place.offset + place.size > file.length) {
    throw new BlockError(
      'corrupt-image',
      `Failed to read bitmap directory (directory_offset ${place.offset}, directory_size ` +
        `${place.size}, file length ${file.length})`,
    );
  }
  const bytes = new Uint8Array(place.size);
  await file.read(readRequest(place.offset, bytes));
  return bytes;
}

/** All entries in their order; kind `corrupt-image` for the first that breaks a rule. */
export function decodeDirectory(
  bytes: Uint8Array,
  count: number,
  bounds: DirectoryBounds,
): BitmapEntry[] {
  const entries: BitmapEntry[] = [];
  for (let offset = 0; offset < bytes.length; ) {
    if (entries.length === count) {
      throw broken(`More bitmaps found than specified in header extension (nb_bitmaps ${count})`);
    }
    const entry = decodeEntry(bytes.subarray(offset), bounds);
    entries.push(entry);
    offset += entryBytes(entry.nameBytes.length);
  }
  if (entries.length === count) return entries;
  throw broken(
    `Less bitmaps found than specified in header extension (nb_bitmaps ${count}, found ` +
      `${entries.length})`,
  );
}

function decodeEntry(bytes: Uint8Array, bounds: DirectoryBounds): BitmapEntry {
  const extent = { version: 3, length: BITMAP_ENTRY.size };
  if (bytes.length < BITMAP_ENTRY.size) throw broken('Broken bitmap directory');
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const size = entryBytes(view.getUint16(18) + view.getUint32(20));
  if (size > bytes.length) throw broken(`Broken bitmap directory (entry of ${size} bytes)`);
  const extraDataSize = view.getUint32(20);
  validateStruct(BITMAP_ENTRY, { extraDataSize }, extent);
  const nameBytes = bytes.slice(BITMAP_ENTRY.size, BITMAP_ENTRY.size + view.getUint16(18));
  const name = Buffer.from(nameBytes).toString('utf8');
  try {
    const fields = decodeStruct(BITMAP_ENTRY, bytes, extent);
    validateStruct(BITMAP_ENTRY, fields, extent);
    requireFitting(fields, bounds);
    const { tableOffset, tableSize, granularityBits, flags } = fields;
    return { name, nameBytes, tableOffset, tableSize, granularityBits, flags };
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
    const text = `Bitmap '${escapeControls(name)}' doesn't satisfy the constraints`;
    throw broken(`${text}: ${error.message}`);
  }
}

interface TableFields {
  readonly tableOffset: number;
  readonly tableSize: number;
  readonly granularityBits: number;
  readonly flags: number;
}

function requireFitting(fields: TableFields, { clusterSize, size }: DirectoryBounds): void {
  const { tableOffset, tableSize, granularityBits, flags } = fields;
  if (tableOffset % clusterSize !== 0) {
    throw broken(`the table must begin with a cluster (table_offset ${tableOffset})`);
  }
  const bytes = tableSize * clusterSize;
  if (bytes > IMAGE_LIMITS.qcow2BitmapBytes) {
    throw broken(`more than ${IMAGE_LIMITS.qcow2BitmapBytes} bytes (table_size ${tableSize})`);
  }
  // One that is not trusted may be of another size of the image.
  if ((flags & BitmapFlag.inUse) !== 0 || size <= bytes * 8 * 2 ** granularityBits) return;
  throw broken(`too few bits for ${size} bytes (table_size ${tableSize})`);
}

export function encodeDirectory(entries: readonly BitmapEntry[]): Uint8Array {
  let size = 0;
  for (const { nameBytes } of entries) size += entryBytes(nameBytes.length);
  const bytes = new Uint8Array(size);
  let offset = 0;
  for (const entry of entries) {
    const at = bytes.subarray(offset);
    const nameSize = entry.nameBytes.length;
    const fields = { ...entry, type: 1, nameSize, extraDataSize: 0 };
    encodeStruct(BITMAP_ENTRY, fields, { bytes: at, version: 3, length: BITMAP_ENTRY.size });
    at.set(entry.nameBytes, BITMAP_ENTRY.size);
    offset += entryBytes(nameSize);
  }
  return bytes;
}

/** Byte of the directory where the flags of each entry begin. */
export function* flagOffsets(entries: readonly BitmapEntry[]): Generator<number> {
  let offset = 0;
  for (const { nameBytes } of entries) {
    yield offset + BITMAP_FLAGS_OFFSET;
    offset += entryBytes(nameBytes.length);
  }
}

/** Bytes that bitmaps take in an image with clusters of that size: bits, tables, directory. */
export function storedBitmapBytes(
  bitmaps: readonly MeasuredBitmap[],
  clusterSize: number,
): number {
  let clusters = 0;
  let directory = 0;
  for (const { name, size, granularity } of bitmaps) {
    const bits = clustersOfBits({ size, clusterSize }, granularity);
    clusters += bits + Math.ceil((bits * 8) / clusterSize);
    directory += entryBytes(Buffer.byteLength(name ?? ''));
  }
  return (clusters + Math.ceil(directory / clusterSize)) * clusterSize;
}

/** What info lists of an image that is only looked at. */
export async function readBitmaps(file: Node, header: Qcow2Header): Promise<BitmapFacts[]> {
  if (header.bitmaps === null) return [];
  const bytes = await readDirectory(file, header.bitmaps);
  const bounds = { clusterSize: header.geometry.clusterSize, size: header.fields.size };
  return decodeDirectory(bytes, header.bitmaps.count, bounds).map(factsOf);
}

function broken(message: string): BlockError {
  return new BlockError('corrupt-image', message);
}
