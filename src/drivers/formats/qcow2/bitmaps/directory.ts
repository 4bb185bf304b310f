// SPDX-License-Identifier: Apache-2.0
// The bitmap directory: one entry for each persistent bitmap, as bytes and as what they say.
//
// Source: the qcow2 format description ("Bitmap directory"). Every field is compared with its
// limit before anything is made of it. A directory may have 64 MiB: it is read in pieces, and of an
// entry nothing is kept but what it says.

import { Buffer, isUtf8 } from 'node:buffer';

import {
  BlockError,
  decodeStruct,
  encodeStruct,
  escapeControls,
  IMAGE_LIMITS,
  NAME_LIMITS,
  validateStruct,
} from '../../../../base/index.js';
import { readRequest } from '../../../../block/index.js';
import type { MeasuredBitmap, Node } from '../../../../block/index.js';
import type { BitmapsPlace, Qcow2Header } from '../header.js';
import { BITMAP_ENTRY, BITMAP_FLAGS_OFFSET, BitmapFlag } from '../layout.js';

export interface BitmapEntry {
  readonly name: string;
  /** Bytes of the name on disk. */
  readonly nameLength: number;
  /** They themselves where they are not UTF-8. */
  readonly nameBytes?: Uint8Array;
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

/** Bytes of a directory that are read at once. */
const PIECE_BYTES = 1024 * 1024;
/** Of a valid entry. */
const MOST_ENTRY_BYTES = BITMAP_ENTRY.size + Math.ceil(NAME_LIMITS.bitmapNameBytes / 8) * 8;

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

/**
 * Entries in their order, read a little at a time. Kind `corrupt-image` for the first that breaks a
 * rule, or where the file ends before the directory does.
 */
export async function* readEntries(
  file: Node,
  place: BitmapsPlace,
  bounds: DirectoryBounds,
): AsyncGenerator<BitmapEntry> {
  if (place.offset + place.size > file.length) {
    throw broken(
      `Failed to read bitmap directory (directory_offset ${place.offset}, directory_size ` +
        `${place.size}, file length ${file.length})`,
    );
  }
  const { count, size } = place;
  const piece = new Uint8Array(Math.min(PIECE_BYTES, size));
  let start = 0;
  let end = 0;
  let found = 0;
  for (let at = 0; at < size; found += 1) {
    if (found === count) {
      throw broken(`More bitmaps found than specified in header extension (nb_bitmaps ${count})`);
    }
    if (end < size && end - at < MOST_ENTRY_BYTES) {
      [start, end] = [at, Math.min(size, at + piece.length)];
      await file.read(readRequest(place.offset + start, piece.subarray(0, end - start)));
    }
    const entry = decodeEntry(piece.subarray(at - start, end - start), size - at, bounds);
    at += entryBytes(entry.nameLength);
    yield entry;
  }
  if (found === count) return;
  throw broken(
    `Less bitmaps found than specified in header extension (nb_bitmaps ${count}, found ${found})`,
  );
}

/** `bytes` has a whole entry if it is a valid one; `rest` are those up to the directory's end. */
function decodeEntry(bytes: Uint8Array, rest: number, bounds: DirectoryBounds): BitmapEntry {
  const extent = { version: 3, length: BITMAP_ENTRY.size };
  if (rest < BITMAP_ENTRY.size) throw broken('Broken bitmap directory');
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const extraDataSize = view.getUint32(20);
  const nameLength = view.getUint16(18);
  const size = entryBytes(nameLength + extraDataSize);
  if (size > rest) throw broken(`Broken bitmap directory (entry of ${size} bytes)`);
  validateStruct(BITMAP_ENTRY, { extraDataSize }, extent);
  const nameBytes = Buffer.from(
    bytes.subarray(BITMAP_ENTRY.size, BITMAP_ENTRY.size + nameLength),
  );
  const name = nameBytes.toString('utf8');
  try {
    const fields = decodeStruct(BITMAP_ENTRY, bytes, extent);
    validateStruct(BITMAP_ENTRY, fields, extent);
    requireFitting(fields, bounds);
    const { tableOffset, tableSize, granularityBits, flags } = fields;
    const entry = { name, nameLength, tableOffset, tableSize, granularityBits, flags };
    return isUtf8(nameBytes) ? entry : { ...entry, nameBytes: new Uint8Array(nameBytes) };
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
    const text = `Bitmap '${escapeControls(name)}' doesn't satisfy the constraints`;
    const detail = error.message;
    throw new BlockError('corrupt-image', `${text} (${detail})`, { detail });
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

/** Bytes of a directory of these entries. */
export function directoryBytes(entries: readonly BitmapEntry[]): number {
  let size = 0;
  for (const { nameLength } of entries) size += entryBytes(nameLength);
  return size;
}

/** The directory, padded to `length` bytes, in pieces; each is there until the next is made. */
export function* directoryPieces(
  entries: readonly BitmapEntry[],
  length: number,
): Generator<Uint8Array> {
  const piece = new Uint8Array(Math.min(PIECE_BYTES, length));
  let used = 0;
  let rest = length;
  for (const entry of entries) {
    const size = entryBytes(entry.nameLength);
    if (used + size > piece.length) {
      yield piece.subarray(0, used);
      rest -= used;
      used = 0;
    }
    encodeEntry(entry, piece.fill(0, used, used + size).subarray(used, used + size));
    used += size;
  }
  for (; rest > 0; used = 0) {
    const part = piece.subarray(0, Math.min(rest, piece.length));
    yield part.fill(0, used);
    rest -= part.length;
  }
}

function encodeEntry(entry: BitmapEntry, bytes: Uint8Array): void {
  const { name, nameBytes, nameLength } = entry;
  const fields = { ...entry, type: 1, nameSize: nameLength, extraDataSize: 0 };
  encodeStruct(BITMAP_ENTRY, fields, { bytes, version: 3, length: BITMAP_ENTRY.size });
  bytes.set(nameBytes ?? Buffer.from(name), BITMAP_ENTRY.size);
}

/** Byte of the directory where the flags of each entry begin. */
export function* flagOffsets(entries: readonly BitmapEntry[]): Generator<number> {
  let offset = 0;
  for (const { nameLength } of entries) {
    yield offset + BITMAP_FLAGS_OFFSET;
    offset += entryBytes(nameLength);
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
  const facts: BitmapFacts[] = [];
  if (header.bitmaps === null) return facts;
  const bounds = { clusterSize: header.geometry.clusterSize, size: header.fields.size };
  for await (const entry of readEntries(file, header.bitmaps, bounds)) facts.push(factsOf(entry));
  return facts;
}

function broken(message: string): BlockError {
  return new BlockError('corrupt-image', message);
}
