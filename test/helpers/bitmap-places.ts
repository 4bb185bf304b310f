// SPDX-License-Identifier: Apache-2.0
// Where the structures of persistent bitmaps lie in the bytes of a qcow2 image.
import { readFileSync, writeFileSync } from 'node:fs';

export interface BitmapPlaces {
  /** Payload of the header extension. */
  readonly extension: number;
  readonly directory: number;
  /** Of the first bitmap. */
  readonly table: number;
}

const AUTOCLEAR = 88;
const FLAGS = 12;

export function bitmapPlaces(bytes: Uint8Array): BitmapPlaces {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const extension = Buffer.from(bytes.subarray(0, 4096)).indexOf('23852875', 0, 'hex') + 8;
  const directory = Number(view.getBigUint64(extension + 16));
  return { extension, directory, table: Number(view.getBigUint64(directory)) };
}

/** As a program leaves it that was killed: the first bitmap is in use. */
export function breakFirstBitmap(path: string): void {
  const bytes = readFileSync(path);
  const at = bitmapPlaces(bytes).directory + FLAGS + 3;
  bytes[at] = (bytes[at] ?? 0) | 1;
  writeFileSync(path, bytes);
}

/** As a program leaves it that does not know bitmaps. */
export function distrustBitmaps(path: string): void {
  const bytes = readFileSync(path);
  bytes.fill(0, AUTOCLEAR, AUTOCLEAR + 8);
  writeFileSync(path, bytes);
}

export interface StoredBits {
  readonly granularity: number;
  /** By granule. */
  readonly dirty: readonly boolean[];
}

/** What the first bitmap says of the image, as it is stored. */
export function storedBits(bytes: Uint8Array): StoredBits {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const { directory, table } = bitmapPlaces(bytes);
  const clusterSize = 2 ** view.getUint32(20);
  const granularity = 2 ** view.getUint8(directory + 17);
  const granules = Math.ceil(Number(view.getBigUint64(24)) / granularity);
  const dirty = Array.from({ length: granules }, (_, granule) => {
    const entry = view.getBigUint64(table + 8 * Math.floor(granule / (8 * clusterSize)));
    const hostOffset = Number(entry & ~1n);
    if (hostOffset === 0) return (entry & 1n) === 1n;
    const within = Math.floor(granule / 8) % clusterSize;
    return ((bytes[hostOffset + within] ?? 0) & (1 << (granule % 8))) !== 0;
  });
  return { granularity, dirty };
}
