// SPDX-License-Identifier: Apache-2.0
// The two copies of a LUKS version 2 header: the newer of those whose checksum holds counts.
//
// A copy is believed when magic, version, place, size and checksum are right; only then is its
// text looked at. The second is found by the size that the first names, or, where the first is
// lost, at one of the nine places where it can be. Nothing is ever repaired here.

import { createHash, getHashes, timingSafeEqual } from 'node:crypto';

import { BlockError, CRYPTO_LIMITS, decodeStruct, MAX_OFFSET } from '../../base/index.js';
import { isLuks1, LUKS_MAGIC } from '../luks/index.js';
import type { LuksArea } from '../luks/index.js';
import { HASH_NAMES, isOneOf } from '../names.js';
import { corrupt, quoted } from './fields.js';
import { parseMetadata } from './metadata.js';
import type { Luks2Metadata } from './metadata.js';
import {
  BINARY,
  BINARY_BYTES,
  CHECKSUM_AT,
  CHECKSUM_BYTES,
  COPY_BYTES,
  HEADER_BYTES_AT,
  HEADER_OFFSET_AT,
  SECOND_MAGIC,
  SEQUENCE_AT,
  VERSION_AT,
} from './layout.js';
import type { RawBinary } from './layout.js';

export type CopyState = 'valid' | 'broken';

export interface Luks2Header extends Luks2Metadata {
  readonly uuid: string;
  readonly label: string;
  readonly subsystem: string;
  /** A bigint above 2^53 − 1. */
  readonly sequence: number | bigint;
  /** Bytes of one copy; key material begins behind two. */
  readonly copyBytes: number;
  readonly copies: { readonly primary: CopyState; readonly secondary: CopyState };
}

/** One that can be believed. */
export interface Luks2Copy {
  readonly raw: RawBinary;
  readonly sequence: bigint;
  /** Of all of it. */
  readonly size: number;
  readonly text: Uint8Array;
  /** All of it. */
  readonly bytes: Uint8Array;
}

export interface Luks2Copies {
  readonly primary: Luks2Copy | Broken;
  readonly secondary: Luks2Copy | Broken;
}

/** A copy that cannot be believed. */
export interface Broken {
  readonly because: string;
}

const EXTENT = { version: 2, length: BINARY_BYTES } as const;
const NO_MAGIC: Broken = { because: 'no magic' };

/** Whether these bytes begin a header of version 2. */
export function isLuks2(head: Uint8Array): boolean {
  return startsWith(head, LUKS_MAGIC) && head[6] === 0 && head[7] === 2;
}

/**
 * Throws kind `corrupt-image` where no copy is valid or the text of the newer one makes no sense,
 * `unsupported` for what this program does not know. `length`: bytes of what the area lies in.
 */
export async function readLuks2Header(area: LuksArea, length: number): Promise<Luks2Header> {
  return headerOf(await readCopies(area, length));
}

/** Null where the area begins with a header of version 1, or with none and has no second copy. */
export async function findLuks2Header(area: LuksArea, length: number): Promise<Luks2Header | null> {
  const head = await area.read(0, Math.min(VERSION_AT + 2, length));
  if (isLuks1(head)) return null;
  try {
    return await readLuks2Header(area, length);
  } catch (error) {
    const isNone = error instanceof BlockError && error.kind === 'corrupt-image';
    if (isNone && !isLuks2(head)) return null;
    throw error;
  }
}

/**
 * Those that can be believed, whatever their texts say. Throws kind `unsupported` where the first
 * is of a later version, to which a second one of this may be of the past.
 */
export async function readCopies(
  area: Pick<LuksArea, 'read'>,
  length: number,
): Promise<Luks2Copies> {
  const place = { area, length };
  const primary = await readCopy(place, 0, LUKS_MAGIC);
  return { primary, secondary: await readSecond(place, primary) };
}

/** Throws as readLuks2Header() does. */
export function headerOf(copies: Luks2Copies): Luks2Header {
  const { raw, text, sequence, size: copyBytes } = newerOf(copies);
  const metadata = parseMetadata(text, copyBytes);
  requirePayloadBehind(metadata, copyBytes);
  return {
    ...metadata,
    uuid: nameOf('uuid', raw.uuid),
    label: nameOf('label', raw.label),
    subsystem: nameOf('subsystem', raw.subsystem),
    sequence: sequence <= MAX_OFFSET ? Number(sequence) : sequence,
    copyBytes,
    copies: { primary: stateOf(copies.primary), secondary: stateOf(copies.secondary) },
  };
}

/** Also where it lies in another file; at 0 it always does. */
function requirePayloadBehind({ segment, keyslotsBytes }: Luks2Metadata, copyBytes: number): void {
  const end = copyBytes * 2 + keyslotsBytes;
  if (segment.offset === 0 || segment.offset >= end) return;
  throw corrupt(`its payload at ${segment.offset} overlaps the area of keyslots up to ${end}`);
}

/** Whether both have one key and payload, whatever their keyslots. */
export function isSameVolume2(one: Luks2Metadata, other: Luks2Metadata): boolean {
  const [left, right] = [one, other].map(({ segment, digest }) => {
    const { salt, value } = digest;
    return JSON.stringify([segment, [...salt], [...value]]);
  });
  return left === right;
}

/** The one that counts: the first of two that are equally new. Throws kind `corrupt-image`. */
export function newerOf({ primary, secondary }: Luks2Copies): Luks2Copy {
  if (isBroken(primary)) {
    if (!isBroken(secondary)) return secondary;
    throw corrupt(
      `neither of its two copies is valid: the primary has ${primary.because}, ` +
        `the secondary ${secondary.because}`,
    );
  }
  if (isBroken(secondary)) return primary;
  return secondary.sequence > primary.sequence ? secondary : primary;
}

export function isBroken(copy: Luks2Copy | Broken): copy is Broken {
  return 'because' in copy;
}

/** Bytes of both copies and of all key material. Throws kind `unsupported` for too many. */
export function headerAreaBytes2({ copyBytes, keyslotsBytes }: Luks2Header): number {
  const bytes = copyBytes * 2 + keyslotsBytes;
  if (bytes <= CRYPTO_LIMITS.headerAreaBytes) return bytes;
  const most = CRYPTO_LIMITS.headerAreaBytes;
  throw new BlockError('unsupported', `LUKS2 header: its area of ${bytes} bytes, above ${most}`);
}

function stateOf(copy: Luks2Copy | Broken): CopyState {
  return isBroken(copy) ? 'broken' : 'valid';
}

interface Place {
  readonly area: Pick<LuksArea, 'read'>;
  readonly length: number;
}

async function readSecond(place: Place, first: Luks2Copy | Broken): Promise<Luks2Copy | Broken> {
  if (!isBroken(first)) return readCopy(place, first.size, SECOND_MAGIC);
  let found: Broken = NO_MAGIC;
  for (const offset of COPY_BYTES) {
    const copy = await readCopy(place, offset, SECOND_MAGIC);
    if (!isBroken(copy)) return copy;
    if (copy !== NO_MAGIC) found = copy;
  }
  return found;
}

async function readCopy(
  { area, length }: Place,
  offset: number,
  magic: Uint8Array,
): Promise<Luks2Copy | Broken> {
  if (offset + BINARY_BYTES > length) {
    return offset > 0 ? NO_MAGIC : { because: `only ${length} of ${BINARY_BYTES} bytes` };
  }
  const head = await area.read(offset, BINARY_BYTES);
  if (!startsWith(head, magic)) return NO_MAGIC;
  const { version, headerBytes, headerOffset, sequence } = numbersOf(head);
  if (version > 2 && offset === 0) {
    throw new BlockError('unsupported', `LUKS version ${version} is not supported`);
  }
  if (version !== 2) return { because: `version ${version}` };
  if (headerOffset !== BigInt(offset)) {
    return { because: `hdr_offset ${headerOffset} at ${offset}` };
  }
  const size = COPY_BYTES.find((bytes) => BigInt(bytes) === headerBytes);
  if (size === undefined || (offset !== 0 && size !== offset) || offset + size > length) {
    return { because: `hdr_size ${headerBytes} at ${offset} of ${length} bytes` };
  }
  const bytes = await area.read(offset, size);
  const raw = decodeStruct(BINARY, bytes, EXTENT);
  const checksum = checksumOf(bytes, raw);
  if ('because' in checksum) return checksum;
  const holds = timingSafeEqual(checksum, raw.checksum.subarray(0, checksum.length));
  if (!holds) return { because: 'a checksum that does not hold' };
  return { raw, sequence, size, text: bytes.subarray(BINARY_BYTES), bytes };
}

/** What may be too large for a number. */
function numbersOf(head: Uint8Array): {
  readonly version: number;
  readonly headerBytes: bigint;
  readonly sequence: bigint;
  readonly headerOffset: bigint;
} {
  const view = new DataView(head.buffer, head.byteOffset);
  return {
    version: view.getUint16(VERSION_AT),
    headerBytes: view.getBigUint64(HEADER_BYTES_AT),
    sequence: view.getBigUint64(SEQUENCE_AT),
    headerOffset: view.getBigUint64(HEADER_OFFSET_AT),
  };
}

/** Of all bytes of the copy, the checksum itself as zeroes. */
export function checksumOf(
  bytes: Uint8Array,
  { checksumName }: Pick<RawBinary, 'checksumName'>,
): Uint8Array | Broken {
  const end = checksumName.indexOf(0);
  const name = Buffer.from(checksumName.subarray(0, Math.max(end, 0))).toString('latin1');
  if (!isOneOf(HASH_NAMES, name) || !getHashes().includes(name)) {
    return { because: `csum_alg ${quoted(name)}, which is not known` };
  }
  return createHash(name)
    .update(bytes.subarray(0, CHECKSUM_AT))
    .update(new Uint8Array(CHECKSUM_BYTES))
    .update(bytes.subarray(CHECKSUM_AT + CHECKSUM_BYTES))
    .digest();
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
