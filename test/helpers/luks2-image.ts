// SPDX-License-Identifier: Apache-2.0
// A LUKS version 2 image made in memory that a password opens, with sectors and vectors at will.

import { deriveKey, makeSectorCipher } from '../../src/crypto/index.js';
import { splitKey } from '../../src/crypto/luks/anti-forensic.js';
import { STRIPES } from '../../src/crypto/luks/index.js';
import { COPY_BYTES, KEYSLOTS_BYTES, luks2Bytes, luks2Text } from './luks2-header.js';
import { LUKS_PASSWORD, XTS } from './luks.js';

export interface Luks2Wish {
  readonly sectorBytes: number;
  /** Number of the first vector. */
  readonly vectorOffset: number;
  /** Volumes of other numbers have other keys. */
  readonly volume?: number;
  /** In CBC instead of XTS. */
  readonly cbc?: boolean;
}

const KEY_BYTES = 64;
const ITERATIONS = 1;
const AREA_BYTES = 258_048;
const SALT = new Uint8Array(32).fill(7);

/** Header and key material; the payload begins where they end. */
export async function luks2Head({
  sectorBytes,
  vectorOffset,
  volume = 1,
  cbc = false,
}: Luks2Wish): Promise<Uint8Array> {
  const keyBytes = cbc ? KEY_BYTES / 2 : KEY_BYTES;
  const masterKey = new Uint8Array(keyBytes).map((_, index) => 3 * index + volume);
  const derive = (password: Uint8Array, length: number): Promise<Uint8Array> => {
    const wish = { hash: 'sha256', salt: SALT, iterations: ITERATIONS } as const;
    return deriveKey({ ...wish, password, length });
  };
  const base64 = (bytes: Uint8Array): string => Buffer.from(bytes).toString('base64');
  const text = luks2Text();
  const areaOffset = 2 * COPY_BYTES;
  const kdf = { type: 'pbkdf2', hash: 'sha256', iterations: ITERATIONS, salt: base64(SALT) };
  const encryption = 'aes-xts-plain64';
  const size = String(AREA_BYTES);
  const area = { type: 'raw', offset: String(areaOffset), size, encryption, key_size: KEY_BYTES };
  const af = { type: 'luks1', stripes: STRIPES, hash: 'sha256' };
  text['keyslots'] = { '0': { type: 'luks2', key_size: keyBytes, af, area, kdf } };
  const offset = areaOffset + KEYSLOTS_BYTES;
  text['segments'] = {
    '0': {
      type: 'crypt', offset: String(offset), size: 'dynamic', iv_tweak: String(vectorOffset),
      encryption: cbc ? 'aes-cbc-plain64' : encryption, sector_size: sectorBytes,
    },
  };
  const digest = base64(await derive(masterKey, 32));
  const of = { keyslots: ['0'], segments: ['0'] };
  text['digests'] = { '0': { ...kdf, ...of, digest } };
  const bytes = luks2Bytes({ text: JSON.stringify(text) });
  const material = new Uint8Array(AREA_BYTES);
  const fill = (buffer: Uint8Array): void => void buffer.fill(9);
  material.set(splitKey(masterKey, { hash: 'sha256', stripes: STRIPES }, fill));
  const key = await derive(Buffer.from(LUKS_PASSWORD), KEY_BYTES);
  makeSectorCipher({ spec: XTS, key, sectorBytes: 512 }).encrypt(material, 0);
  bytes.set(material, areaOffset);
  return bytes;
}
