// SPDX-License-Identifier: Apache-2.0
// A new LUKS header: where its areas lie, its master key, and the first keyslot.
//
// Every keyslot gets its place, used or not; key material begins at 4,096 bytes and the payload
// right behind the last one, each at a multiple of 4,096. Order of writing is the caller's: the
// material before the header, for the header makes it an image.

import { assert, secretBytes } from '../../base/index.js';
import type { DeriveKey } from '../derivation/index.js';
import type { CipherSpec, HashName } from '../names.js';
import { keyBytesOf } from '../names.js';
import type { Keyslot, LuksHeader } from './header.js';
import { materialBytes } from './header.js';
import { makeMaterial } from './keyslots.js';
import { DIGEST_BYTES, KEYSLOT_COUNT, MATERIAL_ALIGNMENT, SALT_BYTES } from './layout.js';

export interface NewLuks {
  readonly spec: CipherSpec;
  readonly hash: HashName;
  /** Of the first keyslot. */
  readonly password: Uint8Array;
  readonly slotIterations: number;
  readonly digestIterations: number;
  /** The payload lies in another file. */
  readonly detached: boolean;
}

export interface LuksTools {
  readonly derive: DeriveKey;
  /** Bytes that nobody can guess. */
  readonly fill: (buffer: Uint8Array) => void;
}

export interface FormattedLuks {
  readonly header: LuksHeader;
  /** Of keyslot 0, at its place. */
  readonly material: Uint8Array;
  /** The caller wipes it. */
  readonly masterKey: Uint8Array;
}

/** Bytes from the header's start to the end of the last key material. */
export function headerAreaBytes(spec: CipherSpec): number {
  return MATERIAL_ALIGNMENT + KEYSLOT_COUNT * slotBytes(spec);
}

function slotBytes(spec: CipherSpec): number {
  return Math.ceil(materialBytes(spec) / MATERIAL_ALIGNMENT) * MATERIAL_ALIGNMENT;
}

export async function formatLuks(wish: NewLuks, tools: LuksTools): Promise<FormattedLuks> {
  const masterKey = secretBytes(keyBytesOf(wish.spec));
  tools.fill(masterKey);
  try {
    const header = await headerOf(wish, masterKey, tools);
    const [keyslot] = header.keyslots;
    assert(keyslot !== undefined, 'a header has keyslots');
    const { password } = wish;
    const material = await makeMaterial({ header, keyslot }, { masterKey, password }, tools);
    return { header, material, masterKey };
  } catch (error) {
    masterKey.fill(0);
    throw error;
  }
}

async function headerOf(
  wish: NewLuks,
  masterKey: Uint8Array,
  tools: LuksTools,
): Promise<LuksHeader> {
  const { spec, hash } = wish;
  const mkDigestSalt = randomBytes(SALT_BYTES, tools);
  const mkDigest = await tools.derive({
    hash,
    password: masterKey,
    salt: mkDigestSalt,
    iterations: wish.digestIterations,
    length: DIGEST_BYTES,
  });
  const first: Keyslot = {
    active: true,
    iterations: wish.slotIterations,
    salt: randomBytes(SALT_BYTES, tools),
    materialOffset: MATERIAL_ALIGNMENT,
  };
  return {
    spec,
    hash,
    payloadOffset: wish.detached ? 0 : headerAreaBytes(spec),
    mkDigest,
    mkDigestSalt,
    mkDigestIterations: wish.digestIterations,
    uuid: uuidOf(randomBytes(16, tools)),
    keyslots: Array.from({ length: KEYSLOT_COUNT }, (_, index) =>
      index === 0 ? first : emptySlot(MATERIAL_ALIGNMENT + index * slotBytes(spec)),
    ),
  };
}

function randomBytes(length: number, { fill }: LuksTools): Uint8Array {
  const bytes = new Uint8Array(length);
  fill(bytes);
  return bytes;
}

function emptySlot(materialOffset: number): Keyslot {
  return { active: false, iterations: 0, salt: new Uint8Array(SALT_BYTES), materialOffset };
}

/** Version 4 (RFC 9562, section 5.4). */
function uuidOf(bytes: Uint8Array): string {
  bytes[6] = ((bytes[6] ?? 0) & 0x0f) | 0x40;
  bytes[8] = ((bytes[8] ?? 0) & 0x3f) | 0x80;
  const text = Buffer.from(bytes).toString('hex');
  const ends = [8, 12, 16, 20, 32];
  return ends.map((end, index) => text.slice(ends[index - 1] ?? 0, end)).join('-');
}
