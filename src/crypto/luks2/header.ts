// SPDX-License-Identifier: Apache-2.0
// The two copies of a LUKS version 2 header: the newer of those whose checksum holds counts.
//
// A copy is believed when magic, version, place, size and checksum are right; only then is its
// text looked at. The second is found by the size that the first names, or, where the first is
// lost, at one of the nine places where it can be. Nothing is ever repaired here.

import { createHash, timingSafeEqual } from 'node:crypto';

import { BlockError, CRYPTO_LIMITS, decodeStruct } from '../../base/index.js';
import { LUKS_MAGIC } from '../luks/index.js';
import type { LuksArea } from '../luks/index.js';
import { parseMetadata } from './metadata.js';
import type { Luks2Metadata } from './metadata.js';
import {
  BINARY,
  BINARY_BYTES,
  CHECKSUM_AT,
  CHECKSUM_BYTES,
  COPY_BYTES,
  SECOND_MAGIC,
} from './layout.js';
import type { RawBinary } from './layout.js';

export type CopyState = 'valid' | 'broken';

export interface Luks2Header extends Luks2Metadata {
  readonly uuid: string;
  readonly label: string;
  readonly subsystem: string;
  readonly sequence: number;
  /** Bytes of one copy; key material begins behind two. */
  readonly copyBytes: number;
  readonly copies: { readonly primary: CopyState; readonly secondary: CopyState };
}

interface Copy {
  readonly raw: RawBinary;
  readonly text: Uint8Array;
}

const EXTENT = { version: 2, length: BINARY_BYTES } as const;
/** By Node's names. */
const CHECKSUMS = ['sha1', 'sha256', 'sha512'];

/** Whether these bytes begin a header of version 2. */
export function isLuks2(head: Uint8Array): boolean {
  return startsWith(head, LUKS_MAGIC) && head[6] === 0 && head[7] === 2;
}

/**
 * Throws kind `corrupt-image` where no copy is valid or the text of the newer one makes no sense,
 * `unsupported` for what this program does not know. `length`: bytes of what the area lies in.
 */
export async function readLuks2Header(area: LuksArea, length: number): Promise<Luks2Header> {
  const place = { area, length };
  const first = await readCopy(place, 0, LUKS_MAGIC);
  const second = await readSecond(place, first);
  if (first === null && second === null) {
    throw corrupt('neither of its two copies has a checksum that holds');
  }
  const isSecondNewer = (second?.raw.sequence ?? -1) > (first?.raw.sequence ?? -1);
  const newer = (isSecondNewer ? second : first) as Copy;
  const { raw, text } = newer;
  const copyBytes = raw.headerBytes;
  const metadata = parseMetadata(text, copyBytes);
  return {
    ...metadata,
    uuid: nameOf('uuid', raw.uuid),
    label: nameOf('label', raw.label),
    subsystem: nameOf('subsystem', raw.subsystem),
    sequence: raw.sequence,
    copyBytes,
    copies: { primary: stateOf(first), secondary: stateOf(second) },
  };
}

/** Whether both have one key and payload, whatever their keyslots. */
export function isSameVolume2(one: Luks2Metadata, other: Luks2Metadata): boolean {
  const [left, right] = [one, other].map(({ segment, digest }) => {
    const { salt, value } = digest;
    return JSON.stringify([segment, [...salt], [...value]]);
  });
  return left === right;
}

/** Bytes of both copies and of all key material. Throws kind `unsupported` for too many. */
export function headerAreaBytes2({ copyBytes, keyslotsBytes }: Luks2Header): number {
  const bytes = copyBytes * 2 + keyslotsBytes;
  if (bytes <= CRYPTO_LIMITS.headerAreaBytes) return bytes;
  const most = CRYPTO_LIMITS.headerAreaBytes;
  throw new BlockError('unsupported', `LUKS2 header: its area of ${bytes} bytes, above ${most}`);
}

/** Throws kind `corrupt-image` for a payload that is to follow in the same file and does not. */
export function requirePayloadBehind({ segment, copyBytes, keyslotsBytes }: Luks2Header): void {
  const end = copyBytes * 2 + keyslotsBytes;
  if (segment.offset >= end) return;
  throw corrupt(`its payload at ${segment.offset} overlaps the area of keyslots up to ${end}`);
}

function stateOf(copy: Copy | null): CopyState {
  return copy === null ? 'broken' : 'valid';
}

interface Place {
  readonly area: LuksArea;
  readonly length: number;
}

async function readSecond(place: Place, first: Copy | null): Promise<Copy | null> {
  if (first !== null) return readCopy(place, first.raw.headerBytes, SECOND_MAGIC);
  for (const offset of COPY_BYTES) {
    const copy = await readCopy(place, offset, SECOND_MAGIC);
    if (copy !== null) return copy;
  }
  return null;
}

/** Null where there is none that can be believed. */
async function readCopy(
  { area, length }: Place,
  offset: number,
  magic: Uint8Array,
): Promise<Copy | null> {
  if (offset + BINARY_BYTES > length) return null;
  const head = await area.read(offset, BINARY_BYTES);
  if (!startsWith(head, magic)) return null;
  let raw: RawBinary;
  try {
    raw = decodeStruct(BINARY, head, EXTENT);
  } catch (error) {
    if (error instanceof BlockError) return null;
    throw error;
  }
  const { headerBytes, headerOffset, version } = raw;
  if (version !== 2 || headerOffset !== offset || !COPY_BYTES.includes(headerBytes)) return null;
  if (offset !== 0 && headerBytes !== offset) return null;
  if (offset + headerBytes > length) return null;
  const bytes = await area.read(offset, headerBytes);
  if (!hasChecksum(bytes, raw)) return null;
  return { raw, text: bytes.subarray(BINARY_BYTES) };
}

/** Of all bytes of the copy, the checksum itself as zeroes. */
function hasChecksum(bytes: Uint8Array, { checksumName, checksum }: RawBinary): boolean {
  const end = checksumName.indexOf(0);
  const name = Buffer.from(checksumName.subarray(0, Math.max(end, 0))).toString('latin1');
  if (!CHECKSUMS.includes(name)) return false;
  const digest = createHash(name)
    .update(bytes.subarray(0, CHECKSUM_AT))
    .update(new Uint8Array(CHECKSUM_BYTES))
    .update(bytes.subarray(CHECKSUM_AT + CHECKSUM_BYTES))
    .digest();
  return timingSafeEqual(digest, checksum.subarray(0, digest.length));
}

function startsWith(bytes: Uint8Array, magic: Uint8Array): boolean {
  return magic.every((byte, index) => bytes[index] === byte);
}

/** Text up to its NUL, as UTF-8. */
function nameOf(field: string, bytes: Uint8Array): string {
  const end = bytes.indexOf(0);
  if (end < 0) throw corrupt(`${field} is not terminated`);
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes.subarray(0, end));
  } catch {
    throw corrupt(`${field} is not UTF-8`);
  }
}

function corrupt(text: string): BlockError {
  return new BlockError('corrupt-image', `LUKS2 header: ${text}`);
}
