// SPDX-License-Identifier: Apache-2.0
// Header areas of LUKS version 2 with keyslots that open, made in no time: one iteration, and the
// smallest key material. Which keyslots open is told by looking: the salt says whose one it is.
import { SeededRandom } from '../../src/base/index.js';
import { deriveKey, makeSectorCipher } from '../../src/crypto/index.js';
import type { CipherSpec } from '../../src/crypto/index.js';
import { STRIPES } from '../../src/crypto/luks/index.js';
import type { LuksArea } from '../../src/crypto/luks/index.js';
import { ownKeyslots, readLuks2Header } from '../../src/crypto/luks2/index.js';
import { splitKey } from '../../src/crypto/luks/anti-forensic.js';
import { COPY_BYTES, luks2Copy, luks2KeyslotText } from './luks2-header.js';

const SPEC: CipherSpec = { cipher: 'aes-128', mode: 'ecb', ivGenerator: null, ivHash: null };
const KEY_BYTES = 16;
/** Others are refused by cryptsetup. */
const SALT_BYTES = 32;
/** Of one keyslot's area, which holds 4,000 stripes. */
export const SLOT_BYTES = 65_536;

export interface SlotWish {
  readonly password: string;
  /** Which of the areas behind the two copies it has. */
  readonly room: number;
}

export interface HeaderWish {
  /** By number. */
  readonly slots: Readonly<Record<number, SlotWish>>;
  readonly sequence?: number;
  /** Areas for keyslots. */
  readonly rooms: number;
}

interface Material {
  readonly bytes: Uint8Array;
  readonly salt: string;
}

/** One master key, and header areas that keep it under any passwords. */
export class Luks2Maker {
  readonly #random: SeededRandom;
  readonly #masterKey = new Uint8Array(KEY_BYTES);
  readonly #digestSalt = new Uint8Array(SALT_BYTES);
  readonly #materials = new Map<string, Material>();

  constructor(seed: number) {
    this.#random = new SeededRandom(seed);
    this.#random.fill(this.#masterKey);
    this.#random.fill(this.#digestSalt);
  }

  /** Both copies and all areas; the same wish gives the same bytes. */
  async make({ slots, rooms, sequence = 1 }: HeaderWish): Promise<Uint8Array> {
    const entries = Object.entries(slots);
    const keyslots: Record<string, unknown> = {};
    const bytes = new Uint8Array(COPY_BYTES * 2 + rooms * SLOT_BYTES);
    for (const [number, { password, room }] of entries) {
      const offset = COPY_BYTES * 2 + room * SLOT_BYTES;
      const { bytes: material, salt } = await this.#materialOf(password);
      keyslots[number] = keyslotText(offset, salt);
      bytes.set(material, offset);
    }
    const digest = await this.#digest(Object.keys(keyslots));
    const text = JSON.stringify({
      keyslots,
      tokens: {},
      segments: { 0: SEGMENT },
      digests: { 0: digest },
      config: { json_size: '12288', keyslots_size: String(rooms * SLOT_BYTES) },
    });
    bytes.set(luks2Copy('primary', { text, sequence }));
    bytes.set(luks2Copy('secondary', { text, sequence }), COPY_BYTES);
    return bytes;
  }

  /** Passwords whose keyslot and key material are whole; none where no header can be believed. */
  async opening(disk: Uint8Array): Promise<string[]> {
    const area = readOnly(disk);
    const header = await readLuks2Header(area, disk.length);
    const passwords: string[] = [];
    for (const { use, areaOffset } of ownKeyslots(header)) {
      if (!('kdf' in use)) continue;
      const salt = Buffer.from(use.kdf.salt).toString('base64');
      for (const [password, material] of this.#materials) {
        if (material.salt !== salt) continue;
        const found = disk.subarray(areaOffset, areaOffset + material.bytes.length);
        if (Buffer.compare(found, material.bytes) === 0) passwords.push(password);
      }
    }
    return passwords;
  }

  async #materialOf(password: string): Promise<Material> {
    const known = this.#materials.get(password);
    if (known !== undefined) return known;
    const salt = new Uint8Array(SALT_BYTES);
    this.#random.fill(salt);
    const split = { hash: 'sha256', stripes: STRIPES } as const;
    const bytes = splitKey(this.#masterKey, split, (buffer) => this.#random.fill(buffer));
    const key = await derive(Buffer.from(password), salt, KEY_BYTES);
    const whole = new Uint8Array(Math.ceil(bytes.length / 512) * 512);
    whole.set(bytes);
    makeSectorCipher({ spec: SPEC, key, sectorBytes: 512 }).encrypt(whole, 0);
    const made = { bytes: whole, salt: Buffer.from(salt).toString('base64') };
    this.#materials.set(password, made);
    return made;
  }

  async #digest(keyslots: readonly string[]): Promise<Record<string, unknown>> {
    const value = await derive(this.#masterKey, this.#digestSalt, 32);
    return {
      type: 'pbkdf2',
      keyslots,
      segments: ['0'],
      hash: 'sha256',
      iterations: 1,
      salt: Buffer.from(this.#digestSalt).toString('base64'),
      digest: Buffer.from(value).toString('base64'),
    };
  }
}

const SEGMENT = {
  type: 'crypt',
  offset: '16777216',
  size: 'dynamic',
  iv_tweak: '0',
  encryption: 'aes-ecb',
  sector_size: 512,
};

function keyslotText(offset: number, salt: string): Record<string, unknown> {
  const area = { offset, size: SLOT_BYTES, encryption: 'aes-ecb' };
  return luks2KeyslotText({ ...area, keyBytes: KEY_BYTES, iterations: 1, salt });
}

function derive(password: Uint8Array, salt: Uint8Array, length: number): Promise<Uint8Array> {
  const origin = 'a test';
  return deriveKey({ hash: 'sha256', password, salt, iterations: 1, length, origin });
}

function readOnly(bytes: Uint8Array): LuksArea {
  const refuse = (): Promise<void> => Promise.reject(new Error('nothing is written'));
  return {
    read: (offset, length) => Promise.resolve(bytes.slice(offset, offset + length)),
    write: refuse,
    flush: refuse,
  };
}
