// SPDX-License-Identifier: Apache-2.0
// What makes equal sectors differ: the initial vectors `plain`, `plain64` and `essiv`.
//
// `plain` is the sector's number in 32 bits and begins again at 2^32, `plain64` has 64 bits, both
// little endian and followed by zeroes. `essiv` encrypts the 64-bit number by AES with the digest
// of the data's key; which AES follows from the length of the digest, not from the data's cipher.

import { createCipheriv } from 'node:crypto';
import type { Cipher } from 'node:crypto';

import { assert } from '../base/index.js';
import { digestOf } from './digest.js';
import type { HashName } from './names.js';
import { aesOfKeyBytes, HASH_BYTES } from './names.js';
import type { CipherKey } from './sector-cipher.js';

const VECTOR_BYTES = 16;
const WORD = 0x1_0000_0000;
/** What vectors count where they do not count sectors. */
const COUNTED_BYTES = 512;

/** The key of essiv; the caller wipes it. */
export function vectorKeyOf(ivHash: HashName, key: Uint8Array): Uint8Array {
  return digestOf(ivHash, key);
}

/** Numbers of vectors from one sector to the next. */
function vectorStep({ sectorBytes, vectors }: CipherKey): number {
  return vectors?.count512 === true ? sectorBytes / COUNTED_BYTES : 1;
}

/** Number of the vector of a sector. */
export function vectorNumber(cipher: CipherKey, sector: number): number {
  return (cipher.vectors?.first ?? 0) + sector * vectorStep(cipher);
}

export class InitialVectors {
  readonly #cipher: CipherKey;
  readonly #encryption: Cipher | null;

  /** The digest of the data's whole key is what essiv encrypts by. */
  constructor(cipher: CipherKey) {
    this.#cipher = cipher;
    const { ivHash } = cipher.spec;
    if (ivHash === null) {
      this.#encryption = null;
      return;
    }
    const aes = aesOfKeyBytes(HASH_BYTES[ivHash]);
    assert(aes !== null, 'essiv has an AES for its digest');
    const digest = vectorKeyOf(ivHash, cipher.key);
    this.#encryption = createCipheriv(`${aes}-ecb`, digest, null).setAutoPadding(false);
    digest.fill(0);
  }

  /** Those of `count` sectors from number `sector` on, one after another. */
  of(sector: number, count: number): Uint8Array {
    const first = vectorNumber(this.#cipher, sector);
    const step = vectorStep(this.#cipher);
    const isShort = this.#cipher.spec.ivGenerator === 'plain';
    const vectors = new Uint8Array(count * VECTOR_BYTES);
    const view = new DataView(vectors.buffer);
    for (let index = 0; index < count; index += 1) {
      const number = first + index * step;
      view.setUint32(index * VECTOR_BYTES, number % WORD, true);
      if (!isShort) view.setUint32(index * VECTOR_BYTES + 4, number / WORD, true);
    }
    return this.#encryption === null ? vectors : this.#encryption.update(vectors);
  }

  /** Ends their use. */
  wipe(): void {
    this.#encryption?.final();
  }
}
