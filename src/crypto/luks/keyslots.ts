// SPDX-License-Identifier: Apache-2.0
// The master key through keyslots: taking it out with a password, putting it in under another.
//
// Material is encrypted by the image's own cipher under the derived key, counted from sector 0.
// Keys that were derived, split or tried and found wrong are wiped before anybody else sees them.

import { assert } from '../../base/index.js';
import type { DeriveKey } from '../derivation/index.js';
import { isSameDigest } from '../digest.js';
import { keyBytesOf } from '../names.js';
import type { CipherSpec, HashName } from '../names.js';
import { makeSectorCipher, SECTOR_BYTES } from '../sector-cipher.js';
import { mergeKey, splitKey } from './anti-forensic.js';
import type { Keyslot, LuksHeader } from './header.js';
import { materialBytes } from './header.js';
import { DIGEST_BYTES, STRIPES } from './layout.js';

/** The bytes that a header and its key material lie in, from the header's start. */
export interface LuksArea {
  read(offset: number, length: number): Promise<Uint8Array>;
  write(offset: number, bytes: Uint8Array): Promise<void>;
  /** Makes what was written durable. */
  flush(): Promise<void>;
}

export interface UnlockedKey {
  readonly slot: number;
  /** The caller wipes it. */
  readonly masterKey: Uint8Array;
}

/** Tries the password at the active keyslots in order; null: it opens none of them. */
export async function unlockAny(
  { area, header }: { readonly area: LuksArea; readonly header: LuksHeader },
  password: Uint8Array,
  derive: DeriveKey,
): Promise<UnlockedKey | null> {
  for (const [slot, keyslot] of header.keyslots.entries()) {
    if (!keyslot.active) continue;
    const masterKey = await unlockSlot({ area, header, keyslot }, password, derive);
    if (masterKey !== null) return { slot, masterKey };
  }
  return null;
}

/** The master key, or null where the password is not that of the keyslot. */
export async function unlockSlot(
  place: { readonly area: LuksArea; readonly header: LuksHeader; readonly keyslot: Keyslot },
  password: Uint8Array,
  derive: DeriveKey,
): Promise<Uint8Array | null> {
  const { area, header, keyslot } = place;
  const { spec, hash } = header;
  const length = keyBytesOf(spec);
  const { salt, iterations, materialOffset } = keyslot;
  const origin = `keyslot ${header.keyslots.indexOf(keyslot)}`;
  const material = await area.read(materialOffset, materialBytes(spec));
  const derived = await derive({ hash, password, salt, iterations, length, origin });
  const masterKey = keyIn(material, { spec, derived, length, hash });
  let isRight = false;
  try {
    isRight = await isMasterKey(header, masterKey, derive);
  } finally {
    if (!isRight) masterKey.fill(0);
  }
  return isRight ? masterKey : null;
}

/** The key in decrypted and merged key material. Takes what it is given, and wipes it. */
export function keyIn(
  material: Uint8Array,
  { spec, derived, length, hash }: {
    readonly spec: CipherSpec;
    readonly derived: Uint8Array;
    /** Bytes of the key. */
    readonly length: number;
    readonly hash: HashName;
  },
): Uint8Array {
  try {
    cryptMaterial('decrypt', material, { spec, derived });
    return mergeKey(material.subarray(0, length * STRIPES), length, hash);
  } finally {
    material.fill(0);
  }
}

/** In place. Wipes the derived key. */
function cryptMaterial(
  way: 'encrypt' | 'decrypt',
  material: Uint8Array,
  { spec, derived }: { readonly spec: CipherSpec; readonly derived: Uint8Array },
): void {
  try {
    const cipher = makeSectorCipher({ spec, key: derived, sectorBytes: SECTOR_BYTES });
    cipher[way](material, 0);
    cipher.wipe();
  } finally {
    derived.fill(0);
  }
}

async function isMasterKey(
  header: LuksHeader,
  masterKey: Uint8Array,
  derive: DeriveKey,
): Promise<boolean> {
  const digest = await derive({
    hash: header.hash,
    password: masterKey,
    salt: header.mkDigestSalt,
    iterations: header.mkDigestIterations,
    length: DIGEST_BYTES,
    origin: "the master key's digest",
  });
  return isSameDigest(digest, header.mkDigest);
}

/** Encrypted key material of one keyslot, in whole sectors; `fill` gives random bytes. */
export async function makeMaterial(
  place: { readonly header: LuksHeader; readonly keyslot: Keyslot },
  { masterKey, password }: { readonly masterKey: Uint8Array; readonly password: Uint8Array },
  tools: { readonly derive: DeriveKey; readonly fill: (buffer: Uint8Array) => void },
): Promise<Uint8Array> {
  const { spec, hash } = place.header;
  const length = keyBytesOf(spec);
  assert(masterKey.length === length, 'the master key fits the cipher');
  const { salt, iterations } = place.keyslot;
  const derived = await tools.derive({ hash, password, salt, iterations, length });
  const material = new Uint8Array(materialBytes(spec));
  const split = splitKey(masterKey, { hash, stripes: STRIPES }, tools.fill);
  material.set(split);
  split.fill(0);
  cryptMaterial('encrypt', material, { spec, derived });
  return material;
}
