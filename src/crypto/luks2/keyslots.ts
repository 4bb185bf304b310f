// SPDX-License-Identifier: Apache-2.0
// The key of a LUKS version 2 segment, taken out of its keyslots with a password.
//
// Only keyslots that the segment's digest names are tried, those of the highest priority first;
// those of priority 0 only by their number. Which of them can be used is looked at before any
// derivation, and what was derived and found wrong is wiped.

import { timingSafeEqual } from 'node:crypto';

import { BlockError } from '../../base/index.js';
import type { LuksArea, UnlockedKey } from '../luks/index.js';
import { keyIn } from '../luks/index.js';
import type { DeriveKey } from '../derivation/index.js';
import { keyBytesOf } from '../names.js';
import type { DeriveArgon2 } from './argon2.js';
import type { KeyslotUse, Luks2Digest, Luks2Keyslot, Luks2Metadata } from './metadata.js';
import { keyMaterialBytes } from './metadata.js';

/** Both with their limits. */
export interface Luks2Tools {
  readonly derive: DeriveKey;
  readonly argon2: DeriveArgon2;
}

interface Volume {
  readonly area: LuksArea;
  readonly header: Luks2Metadata;
}

/** Keyslots that open the segment. */
export function ownKeyslots({ keyslots, digest }: Luks2Metadata): readonly Luks2Keyslot[] {
  return keyslots.filter(({ number }) => digest.keyslots.includes(number));
}

/**
 * Null: the password opens none of them. Throws kind `unsupported` where it opens none of those
 * that can be used here, and there are others.
 */
export async function unlockAny2(
  volume: Volume,
  password: Uint8Array,
  tools: Luks2Tools,
): Promise<UnlockedKey | null> {
  const keyslots = ownKeyslots(volume.header)
    .filter(({ priority }) => priority > 0)
    .toSorted((left, right) => right.priority - left.priority);
  for (const keyslot of keyslots) {
    if (keyslot.use instanceof BlockError) continue;
    const masterKey = await unlockSlot2({ ...volume, keyslot }, password, tools);
    if (masterKey !== null) return { slot: keyslot.number, masterKey };
  }
  for (const { use } of keyslots) if (use instanceof BlockError) throw use;
  return null;
}

/** The caller wipes the key. Throws kind `unsupported` for a keyslot that cannot be used here. */
export async function unlockSlot2(
  { area, header, keyslot }: Volume & { readonly keyslot: Luks2Keyslot },
  password: Uint8Array,
  tools: Luks2Tools,
): Promise<Uint8Array | null> {
  const { use, keyBytes, areaOffset } = keyslot;
  if (use instanceof BlockError) throw use;
  const { spec, hash } = use;
  const material = await area.read(areaOffset, keyMaterialBytes(keyBytes));
  const derived = await derivedBy(keyslot.number, use, { password, tools });
  const masterKey = keyIn(material, { spec, derived, length: keyBytes, hash });
  let isRight = false;
  try {
    isRight = await isKeyOf(header.digest, masterKey, tools);
  } finally {
    if (!isRight) masterKey.fill(0);
  }
  return isRight ? masterKey : null;
}

function derivedBy(
  slot: number,
  { kdf, spec }: KeyslotUse,
  { password, tools }: { readonly password: Uint8Array; readonly tools: Luks2Tools },
): Promise<Uint8Array> {
  const length = keyBytesOf(spec);
  if (kdf.type !== 'pbkdf2') return tools.argon2({ ...kdf, password, length });
  const { hash, salt, iterations } = kdf;
  const origin = `keyslot ${slot}`;
  return tools.derive({ hash, password, salt, iterations, length, origin });
}

async function isKeyOf(
  { number, hash, salt, iterations, value }: Luks2Digest,
  key: Uint8Array,
  { derive }: Luks2Tools,
): Promise<boolean> {
  const { length } = value;
  const origin = `digest ${number}`;
  const found = await derive({ hash, password: key, salt, iterations, length, origin });
  return timingSafeEqual(found, value);
}
