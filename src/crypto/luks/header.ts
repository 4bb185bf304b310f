// SPDX-License-Identifier: Apache-2.0
// A LUKS version 1 header as checked values, and back to its bytes.
//
// Nothing of it is believed before it was looked at: names end with NUL and are printable, the
// cipher is one that is built in, iterations are there, and no two of header, key material and
// payload overlap (CVE-2021-4122 and its kin). What can be told from the bytes alone is told
// here, in the reference's words and order, which scripts know; that a derivation takes too long
// is told by whoever derives.

import { BlockError, decodeStruct, encodeStruct, escapeControls, must } from '../../base/index.js';
import type { CipherSpec, HashName } from '../names.js';
import { cipherSpecOf, hashOfHeader, keyBytesOf, luksModeOf } from '../names.js';
import { SECTOR_BYTES } from '../sector-cipher.js';
import type { RawHeader, RawKeyslot } from './layout.js';
import {
  HEADER,
  HEADER_BYTES,
  KEYSLOT,
  KEYSLOT_COUNT,
  KEYSLOTS_AT,
  LUKS_MAGIC,
  MATERIAL_ALIGNMENT,
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

/** Bytes that key material takes, in whole sectors. */
export function materialBytes(spec: CipherSpec): number {
  return materialOf(keyBytesOf(spec));
}

function materialOf(keyBytes: number): number {
  return Math.ceil((keyBytes * STRIPES) / SECTOR_BYTES) * SECTOR_BYTES;
}

export function hasLuksMagic(head: Uint8Array): boolean {
  return LUKS_MAGIC.every((byte, index) => head[index] === byte);
}

/** Whether these bytes begin a header of version 1. */
export function isLuks1(head: Uint8Array): boolean {
  return hasLuksMagic(head) && head[6] === 0 && head[7] === 1;
}

/**
 * `bytes` are the first 592. Throws kind `corrupt-image` with field and value, `unsupported` for
 * another version, cipher, mode or digest.
 */
export function parseLuksHeader(bytes: Uint8Array, place: HeaderPlace): LuksHeader {
  if (!hasLuksMagic(bytes)) throw new BlockError('corrupt-image', 'Volume is not in LUKS format');
  if (bytes.length < HEADER_BYTES) throw corrupt(`LUKS header: it ends at ${bytes.length} bytes`);
  const raw = decodeStruct(HEADER, bytes, EXTENT);
  if (raw.version !== 1) {
    throw new BlockError('unsupported', `LUKS version ${raw.version} is not supported`);
  }
  const cipherName = textOf('cipher name', raw.cipherName);
  const cipherMode = textOf('cipher mode', raw.cipherMode);
  const hashSpec = textOf('hash spec', raw.hashSpec);
  if (raw.mkDigestIterations === 0) {
    throw corrupt('LUKS key iteration count is zero', 'mk_digest_iterations 0');
  }
  const slots = Array.from({ length: KEYSLOT_COUNT }, (_, index) => {
    return decodeStruct(KEYSLOT, bytes.subarray(KEYSLOTS_AT + index * KEYSLOT.size), EXTENT);
  });
  requirePayload(raw, place);
  for (const index of slots.keys()) {
    requireSound(index, slots);
    requireApart({ index, slots }, raw, place);
  }
  return {
    spec: cipherSpecOf({ cipherName, cipherMode, keyBytes: raw.keyBytes }),
    hash: hashOfHeader(hashSpec),
    payloadOffset: raw.payloadOffset * SECTOR_BYTES,
    mkDigest: raw.mkDigest,
    mkDigestSalt: raw.mkDigestSalt,
    mkDigestIterations: raw.mkDigestIterations,
    uuid: uuidOf(raw.uuid),
    keyslots: slots.map(({ active, iterations, salt, keyMaterialOffset }) => ({
      active: active === SlotState.active,
      iterations,
      salt,
      materialOffset: keyMaterialOffset * SECTOR_BYTES,
    })),
  };
}

/** A header takes as much as lies before the first key material of headers that are made here. */
function requirePayload({ payloadOffset }: RawHeader, { detached }: HeaderPlace): void {
  if (detached || payloadOffset * SECTOR_BYTES >= MATERIAL_ALIGNMENT) return;
  const text = 'LUKS payload is overlapping with the header';
  throw corrupt(text, `payload_offset ${payloadOffset}`);
}

function requireSound(index: number, slots: readonly RawKeyslot[]): void {
  const { active, iterations, stripes } = must(slots[index], 'a keyslot');
  // Scripts know the number with a sign.
  if (stripes !== STRIPES) {
    throw corrupt(`Keyslot ${index} is corrupted (stripes ${stripes | 0} != ${STRIPES})`);
  }
  if (active !== SlotState.active && active !== SlotState.inactive) {
    const detail = `active 0x${active.toString(16).padStart(8, '0')}`;
    throw corrupt(`Keyslot ${index} state (active/disable) is corrupted`, detail);
  }
  if (active === SlotState.active && iterations === 0) {
    throw corrupt(`Keyslot ${index} iteration count is zero`, 'iterations 0');
  }
}

/** The keyslot from the header, the payload, and those that follow. */
function requireApart(
  { index, slots }: { readonly index: number; readonly slots: readonly RawKeyslot[] },
  { keyBytes, payloadOffset }: RawHeader,
  { detached }: HeaderPlace,
): void {
  const length = materialOf(keyBytes);
  const starts = slots.map(({ keyMaterialOffset }) => keyMaterialOffset * SECTOR_BYTES);
  const start = must(starts[index], 'a keyslot');
  const field = `key_material_offset ${start / SECTOR_BYTES}`;
  if (start < HEADER_BYTES) {
    throw corrupt(`Keyslot ${index} is overlapping with the LUKS header`, field);
  }
  if (!detached && start + length > payloadOffset * SECTOR_BYTES) {
    const text = `Keyslot ${index} is overlapping with the encrypted payload`;
    throw corrupt(text, `${field}, key_bytes ${keyBytes}, payload_offset ${payloadOffset}`);
  }
  for (let other = index + 1; other < starts.length; other += 1) {
    const from = must(starts[other], 'a keyslot');
    if (start >= from + length || from >= start + length) continue;
    const text = `Keyslots ${index} and ${other} are overlapping in the header`;
    throw corrupt(text, `${field} and ${from / SECTOR_BYTES}, key_bytes ${keyBytes}`);
  }
}

/** Up to its NUL, fit to be shown. */
function textOf(field: string, bytes: Uint8Array): string {
  const end = bytes.indexOf(0);
  if (end < 0) throw corrupt(`LUKS header ${field} is not NUL terminated`);
  return escapeControls(Buffer.from(bytes.subarray(0, end)).toString('latin1'));
}

/** Nothing looks at it; but it is shown, and written again with the header. */
function uuidOf(bytes: Uint8Array): string {
  const text = textOf('uuid', bytes);
  if (/^[\x20-\x7e]*$/.test(text) && text.length === bytes.indexOf(0)) return text;
  throw corrupt(`LUKS header uuid '${text}' is not printable`);
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

/** `detail`: field and value, which the reference does not print. */
function corrupt(text: string, detail?: string): BlockError {
  if (detail === undefined) return new BlockError('corrupt-image', text);
  return new BlockError('corrupt-image', `${text} (${detail})`, { detail });
}
