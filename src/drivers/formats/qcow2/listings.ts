// SPDX-License-Identifier: Apache-2.0
// Persistent bitmaps as info lists them; their contents are not touched.
//
// Source: the qcow2 format description ("Bitmaps extension"). Entries are read one
// after another, each length compared with its limit and with the end of the file first.

import {
  BlockError,
  decodeStruct,
  IMAGE_LIMITS,
  struct,
  u16,
  u32,
  u64,
  u8,
  validateStruct,
} from '../../../base/index.js';
import type { Struct } from '../../../base/index.js';
import { readRequest } from '../../../block/index.js';
import type { Node } from '../../../block/index.js';
import type { Qcow2Header } from './header.js';
import { BITMAPS_EXTENSION, ExtensionType } from './layout.js';

const BITMAP = struct('bitmap directory entry', [
  u64('tableOffset'),
  u32('tableSize'),
  u32('flags'),
  u8('type', { equals: 1 }),
  u8('granularityBits', { max: 31 }),
  u16('nameSize', { min: 1, max: 1023 }),
  u32('extraDataSize', { max: 0 }),
]);

const BITMAP_FLAGS = ['in-use', 'auto'] as const;

/** Member of `bitmaps` in the format-specific information. */
export interface BitmapFacts {
  readonly flags: readonly string[];
  readonly name: string;
  /** Bytes. */
  readonly granularity: number;
}

/** Reads ahead in one table; refuses to leave the file or the table's own limit. */
class TableCursor {
  readonly #file: Node;
  readonly #name: string;
  readonly #end: number;
  offset: number;

  constructor(file: Node, name: string, range: { offset: number; length: number }) {
    this.#file = file;
    this.#name = name;
    this.offset = range.offset;
    this.#end = Math.min(file.length, range.offset + range.length);
  }

  async take(length: number): Promise<Uint8Array> {
    if (this.offset + length > this.#end) {
      throw new BlockError('corrupt-image', `${this.#name} ends too early (offset ${this.offset})`);
    }
    const bytes = new Uint8Array(length);
    if (length > 0) await this.#file.read(readRequest(this.offset, bytes));
    this.offset += length;
    return bytes;
  }

  async decode<V>(table: Struct<V>): Promise<V> {
    const extent = { version: 3, length: table.size };
    const value = decodeStruct(table, await this.take(table.size), extent);
    validateStruct(table, value, extent);
    return value;
  }

  async text(length: number): Promise<string> {
    return Buffer.from(await this.take(length)).toString('utf8');
  }

  align(start: number): void {
    this.offset = start + Math.ceil((this.offset - start) / 8) * 8;
  }
}

/** All persistent bitmaps in the order of the directory. */
export async function readBitmaps(file: Node, header: Qcow2Header): Promise<BitmapFacts[]> {
  const extension = header.extensions.find(({ type }) => type === ExtensionType.bitmaps);
  if (extension === undefined || header.bitmapCount === 0) return [];
  const extent = { version: 3, length: BITMAPS_EXTENSION.size };
  const place = decodeStruct(BITMAPS_EXTENSION, extension.data, extent);
  const length = Math.min(place.directorySize, IMAGE_LIMITS.qcow2ListBytes);
  const cursor = new TableCursor(file, 'Bitmap directory', {
    offset: place.directoryOffset,
    length,
  });
  const bitmaps: BitmapFacts[] = [];
  for (let index = 0; index < header.bitmapCount; index += 1) {
    const start = cursor.offset;
    const entry = await cursor.decode(BITMAP);
    const name = await cursor.text(entry.nameSize);
    cursor.align(start);
    const flags = BITMAP_FLAGS.filter((_, bit) => ((entry.flags >>> bit) & 1) === 1);
    bitmaps.push({ flags, name, granularity: 2 ** entry.granularityBits });
  }
  return bitmaps;
}
