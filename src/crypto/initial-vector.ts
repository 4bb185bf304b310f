// SPDX-License-Identifier: Apache-2.0
// What makes equal sectors differ: the initial vectors `plain`, `plain64` and `essiv`.
//
// `plain` is the sector's number in 32 bits and begins again at 2^32, `plain64` has 64 bits, both
// little endian and followed by zeroes. `essiv` encrypts the 64-bit number by AES with the digest
// of the data's key; which AES follows from the length of the digest, not from the data's cipher.

import { createCipheriv, createHash } from 'node:crypto';

import { assert } from '../base/index.js';
import type { CipherSpec, HashName } from './names.js';
import { aesOfKeyBytes, HASH_BYTES } from './names.js';
import type { CipherKey } from './sector-cipher.js';

const VECTOR_BYTES = 16;
const WORD = 0x1_0000_0000;
/** What vectors count where they do not count sectors. */
const COUNTED_BYTES = 512;

/** The key of essiv; the caller wipes it. */
export function vectorKeyOf(ivHash: HashName, key: Uint8Array): Uint8Array {
  return createHash(ivHash).update(key).digest();
}

/** Numbers of vectors from one sector to the next. */
export function vectorStep({ sectorBytes, vectors }: CipherKey): number {
  return vectors?.count512 === true ? sectorBytes / COUNTED_BYTES : 1;
}

/** Number of the vector of a sector. */
export function vectorNumber(cipher: CipherKey, sector: number): number {
  return (cipher.vectors?.first ?? 0) + sector * vectorStep(cipher);
}

export class InitialVectors {
  readonly #isShort: boolean;
  readonly #encrypt: ((blocks: Uint8Array) => Buffer) | null;

  /** `key` is that of the data: the digest of all of it is what essiv encrypts by. */
  constructor({ ivGenerator, ivHash }: CipherSpec, key: Uint8Array) {
    this.#isShort = ivGenerator === 'plain';
    if (ivHash === null) {
      this.#encrypt = null;
      return;
    }
    const cipher = aesOfKeyBytes(HASH_BYTES[ivHash]);
    assert(cipher !== null, 'essiv has an AES for its digest');
    const digest = vectorKeyOf(ivHash, key);
    const encryption = createCipheriv(`${cipher}-ecb`, digest, null).setAutoPadding(false);
    digest.fill(0);
    this.#encrypt = (blocks) => encryption.update(blocks);
  }

  /** `count` vectors from number `first` on, `step` numbers from one to the next. */
  of(first: number, count: number, step = 1): Uint8Array {
    const vectors = new Uint8Array(count * VECTOR_BYTES);
    const view = new DataView(vectors.buffer);
    for (let index = 0; index < count; index += 1) {
      const sector = first + index * step;
      view.setUint32(index * VECTOR_BYTES, sector % WORD, true);
      if (!this.#isShort) view.setUint32(index * VECTOR_BYTES + 4, sector / WORD, true);
    }
    return this.#encrypt === null ? vectors : this.#encrypt(vectors);
  }
}
