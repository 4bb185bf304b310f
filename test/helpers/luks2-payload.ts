// SPDX-License-Identifier: Apache-2.0
// Whole images with a LUKS header of version 2, made in memory in no time: one iteration, two
// keyslots of which the first has a password, and a payload of known bytes.
import { SeededRandom } from '../../src/base/index.js';
import { deriveKey, makeSectorCipher } from '../../src/crypto/index.js';
import type { CipherSpec } from '../../src/crypto/index.js';
import { STRIPES } from '../../src/crypto/luks/index.js';
import { splitKey } from '../../src/crypto/luks/anti-forensic.js';
import { LUKS_PASSWORD } from './luks.js';
import { luks2Copy, luks2KeyslotText } from './luks2-header.js';

export const SMALL_COPY_BYTES = 16_384;
const KEY_BYTES = 32;
const AREA_BYTES = 131_072;
const SLOTS = 2;
const ENCRYPTION = 'aes-xts-plain64';
const SPEC: CipherSpec = { cipher: 'aes-128', mode: 'xts', ivGenerator: 'plain64', ivHash: null };
const SECTOR_BYTES = 512;

/** Where the payload begins. */
export const LUKS2_PAYLOAD = 2 * SMALL_COPY_BYTES + SLOTS * AREA_BYTES;

const base64 = (bytes: Uint8Array): string => Buffer.from(bytes).toString('base64');

function areaOffset(slot: number): number {
  return 2 * SMALL_COPY_BYTES + slot * AREA_BYTES;
}

function keyslot(slot: number, salt: Uint8Array): Record<string, unknown> {
  const area = { offset: areaOffset(slot), size: AREA_BYTES, encryption: ENCRYPTION };
  return luks2KeyslotText({ ...area, keyBytes: KEY_BYTES, iterations: 1, salt: base64(salt) });
}

/** The file, and the text of its headers. The payload, decrypted, is `plain` in whole sectors. */
export async function makeLuks2(
  plain: Uint8Array,
): Promise<{ readonly bytes: Uint8Array; readonly text: Record<string, unknown> }> {
  const random = new SeededRandom(2);
  const make = (length: number): Uint8Array => {
    const bytes = new Uint8Array(length);
    random.fill(bytes);
    return bytes;
  };
  const [masterKey, salt, digestSalt] = [make(KEY_BYTES), make(32), make(32)];
  const wish = { hash: 'sha256', iterations: 1 } as const;
  const password = Buffer.from(LUKS_PASSWORD);
  const slotKey = await deriveKey({ ...wish, password, salt, length: KEY_BYTES });
  const digest = await deriveKey({ ...wish, password: masterKey, salt: digestSalt, length: 32 });
  const text = {
    keyslots: { '0': keyslot(0, salt), '1': keyslot(1, digestSalt) },
    tokens: { '0': { type: 'luks2-keyring', keyslots: ['0'], key_description: 'a key' } },
    segments: {
      '0': {
        type: 'crypt',
        offset: String(LUKS2_PAYLOAD),
        size: 'dynamic',
        iv_tweak: '0',
        encryption: ENCRYPTION,
        sector_size: SECTOR_BYTES,
      },
    },
    digests: {
      '0': {
        type: 'pbkdf2',
        keyslots: ['0', '1'],
        segments: ['0'],
        ...wish,
        salt: base64(digestSalt),
        digest: base64(digest),
      },
    },
    config: {
      json_size: String(SMALL_COPY_BYTES - 4096),
      keyslots_size: String(SLOTS * AREA_BYTES),
    },
  };
  const bytes = new Uint8Array(LUKS2_PAYLOAD + plain.length);
  putCopies(bytes, JSON.stringify(text));
  const fill = (buffer: Uint8Array): void => random.fill(buffer);
  const split = splitKey(masterKey, { hash: 'sha256', stripes: STRIPES }, fill);
  const material = bytes.subarray(areaOffset(0), areaOffset(0) + split.length);
  material.set(split);
  const crypt = (key: Uint8Array, data: Uint8Array): void =>
    makeSectorCipher({ spec: SPEC, key, sectorBytes: SECTOR_BYTES }).encrypt(data, 0);
  crypt(slotKey, material);
  const payload = bytes.subarray(LUKS2_PAYLOAD);
  payload.set(plain);
  crypt(masterKey, payload);
  return { bytes, text };
}

/** Writes both copies anew, with this text. */
export function putCopies(bytes: Uint8Array, text: string): void {
  bytes.set(luks2Copy('primary', { text }));
  bytes.set(luks2Copy('secondary', { text }), SMALL_COPY_BYTES);
}
