// SPDX-License-Identifier: Apache-2.0
// A LUKS version 1 header as checked values, and back to its bytes.
//
// Nothing of it is believed before it was looked at: names end with NUL and are printable, the
// cipher is one that is built in, iterations are there, and no two of header, key material and
// payload overlap (CVE-2021-4122 and its kin). What can be told from the bytes alone is told
// here; that a derivation takes too long is told by whoever derives.

import { BlockError, decodeStruct, encodeStruct, validateStruct } from '../../base/index.js';
import type { CipherSpec, HashName } from '../names.js';
import { cipherSpecOf, HASH_NAMES, isOneOf, keyBytesOf, luksModeOf } from '../names.js';
import { SECTOR_BYTES } from '../sector-cipher.js';
import type { RawKeyslot } from './layout.js';
import {
  HEADER,
  HEADER_BYTES,
  KEYSLOT,
  KEYSLOT_COUNT,
  KEYSLOTS_AT,
  LUKS_MAGIC,
  SlotState,
  STRIPES,
} from './layout.js';

export interface Keyslot {
  readonly active: boolean;
  readonly iterations: number;
  readonly salt: Uint8Array;
  /** Bytes from the header's start. */
  readonly materialOffset: number;
}

export interface LuksHeader {
  readonly spec: CipherSpec;
  readonly hash: HashName;
  /** Bytes from the header's start; 0 where the header is detached. */
  readonly payloadOffset: number;
  readonly mkDigest: Uint8Array;
  readonly mkDigestSalt: Uint8Array;
  readonly mkDigestIterations: number;
  readonly uuid: string;
  /** Eight of them. */
  readonly keyslots: readonly Keyslot[];
}

/** Where the payload of the header is. */
export interface HeaderPlace {
  /** The header lies apart from the payload: `payloadOffset` is that of another file. */
  readonly detached: boolean;
}

const EXTENT = { version: 1, length: HEADER_BYTES } as const;
const MAX_ITERATIONS = 2 ** 31 - 1;

/** Bytes that key material takes, in whole sectors. */
export function materialBytes(spec: CipherSpec): number {
  return Math.ceil((keyBytesOf(spec) * STRIPES) / SECTOR_BYTES) * SECTOR_BYTES;
}

export function hasLuksMagic(head: Uint8Array): boolean {
  return LUKS_MAGIC.every((byte, index) => head[index] === byte);
}

/**
 * `bytes` are the first 592. Throws kind `corrupt-image` with field and value, `unsupported` for
 * another version, cipher, mode or digest.
 */
export function parseLuksHeader(bytes: Uint8Array, place: HeaderPlace): LuksHeader {
  if (bytes.length < HEADER_BYTES) throw corrupt(`the file ends at ${bytes.length} bytes`);
  if (!hasLuksMagic(bytes)) throw new BlockError('corrupt-image', 'Volume is not in LUKS format');
  const raw = decodeStruct(HEADER, bytes, EXTENT);
  if (raw.version !== 1) {
    throw new BlockError('unsupported', `LUKS version ${raw.version} is not supported`);
  }
  validateStruct(HEADER, raw, EXTENT);
  const cipherMode = textOf('cipher_mode', raw.cipherMode);
  const cipherName = textOf('cipher_name', raw.cipherName);
  const hash = textOf('hash_spec', raw.hashSpec);
  if (!isOneOf(HASH_NAMES, hash)) {
    throw new BlockError('unsupported', `LUKS header: hash '${hash}' is not supported`);
  }
  const spec = cipherSpecOf({ cipherName, cipherMode, keyBytes: raw.keyBytes });
  requireIterations('mk_digest_iterations', raw.mkDigestIterations);
  const header: LuksHeader = {
    spec,
    hash,
    payloadOffset: raw.payloadOffset * SECTOR_BYTES,
    mkDigest: raw.mkDigest,
    mkDigestSalt: raw.mkDigestSalt,
    mkDigestIterations: raw.mkDigestIterations,
    uuid: textOf('uuid', raw.uuid),
    keyslots: Array.from({ length: KEYSLOT_COUNT }, (_, index) => keyslotAt(bytes, index)),
  };
  requireApart(header, place);
  return header;
}

function keyslotAt(bytes: Uint8Array, index: number): Keyslot {
  const at = KEYSLOTS_AT + index * KEYSLOT.size;
  const raw: RawKeyslot = decodeStruct(KEYSLOT, bytes.subarray(at), EXTENT);
  try {
    validateStruct(KEYSLOT, raw, EXTENT);
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
    throw corrupt(`keyslot ${index}: ${error.message}`);
  }
  const active = raw.active === SlotState.active;
  if (active) requireIterations(`keyslot ${index} iterations`, raw.iterations);
  return {
    active,
    iterations: raw.iterations,
    salt: raw.salt,
    materialOffset: raw.keyMaterialOffset * SECTOR_BYTES,
  };
}

function requireIterations(what: string, value: number): void {
  if (value >= 1 && value <= MAX_ITERATIONS) return;
  throw corrupt(`${what} must be from 1 to 2^31 - 1, not ${value}`);
}

/** Every pair of header, key material and payload. */
function requireApart(header: LuksHeader, { detached }: HeaderPlace): void {
  const length = materialBytes(header.spec);
  const areas = header.keyslots.map(({ materialOffset }, index) => ({
    name: `key material of keyslot ${index}`,
    start: materialOffset,
    end: materialOffset + length,
  }));
  areas.unshift({ name: 'the header', start: 0, end: HEADER_BYTES });
  for (const [index, area] of areas.entries()) {
    for (const other of areas.slice(index + 1)) {
      if (area.start >= other.end || other.start >= area.end) continue;
      throw corrupt(`${other.name} at ${other.start} overlaps ${area.name}`);
    }
    if (detached || area.end <= header.payloadOffset) continue;
    throw corrupt(`${area.name} overlaps the payload at ${header.payloadOffset}`);
  }
}

/** Ends with NUL and is printable ASCII before that. */
function textOf(field: string, bytes: Uint8Array): string {
  const end = bytes.indexOf(0);
  if (end < 0) throw corrupt(`${field} is not terminated`);
  const text = Buffer.from(bytes.subarray(0, end)).toString('latin1');
  if (!/^[\x20-\x7e]*$/.test(text)) throw corrupt(`${field} is not printable`);
  return text;
}

/** The 592 bytes of the header. */
export function encodeLuksHeader(header: LuksHeader): Uint8Array {
  const bytes = new Uint8Array(HEADER_BYTES);
  encodeStruct(
    HEADER,
    {
      magic: LUKS_MAGIC,
      version: 1,
      cipherName: padded('aes', 32),
      cipherMode: padded(luksModeOf(header.spec), 32),
      hashSpec: padded(header.hash, 32),
      payloadOffset: header.payloadOffset / SECTOR_BYTES,
      keyBytes: keyBytesOf(header.spec),
      mkDigest: header.mkDigest,
      mkDigestSalt: header.mkDigestSalt,
      mkDigestIterations: header.mkDigestIterations,
      uuid: padded(header.uuid, 40),
    },
    { bytes, ...EXTENT },
  );
  for (const [index, slot] of header.keyslots.entries()) {
    const target = bytes.subarray(KEYSLOTS_AT + index * KEYSLOT.size);
    encodeStruct(
      KEYSLOT,
      {
        active: slot.active ? SlotState.active : SlotState.inactive,
        iterations: slot.iterations,
        salt: slot.salt,
        keyMaterialOffset: slot.materialOffset / SECTOR_BYTES,
        stripes: STRIPES,
      },
      { bytes: target, ...EXTENT },
    );
  }
  return bytes;
}

function padded(text: string, length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  bytes.set(Buffer.from(text, 'latin1').subarray(0, length - 1));
  return bytes;
}

function corrupt(text: string): BlockError {
  return new BlockError('corrupt-image', `LUKS header: ${text}`);
}
