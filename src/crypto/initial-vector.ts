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
import type { CipherSpec, HashName } from './names.js';
import { aesOfKeyBytes, HASH_BYTES } from './names.js';

const VECTOR_BYTES = 16;
const WORD = 0x1_0000_0000;

/** The key of essiv; the caller wipes it. */
export function vectorKeyOf(ivHash: HashName, key: Uint8Array): Uint8Array {
  return digestOf(ivHash, key);
}

export class InitialVectors {
  readonly #isShort: boolean;
  readonly #encryption: Cipher | null;

  /** `key` is that of the data: the digest of all of it is what essiv encrypts by. */
  constructor({ ivGenerator, ivHash }: CipherSpec, key: Uint8Array) {
    this.#isShort = ivGenerator === 'plain';
    if (ivHash === null) {
      this.#encryption = null;
      return;
    }
    const cipher = aesOfKeyBytes(HASH_BYTES[ivHash]);
    assert(cipher !== null, 'essiv has an AES for its digest');
    const digest = vectorKeyOf(ivHash, key);
    this.#encryption = createCipheriv(`${cipher}-ecb`, digest, null).setAutoPadding(false);
    digest.fill(0);
  }

  /** The vectors of `count` sectors from number `first` on, one after another. */
  of(first: number, count: number): Uint8Array {
    const vectors = new Uint8Array(count * VECTOR_BYTES);
    const view = new DataView(vectors.buffer);
    for (let index = 0; index < count; index += 1) {
      const sector = first + index;
      view.setUint32(index * VECTOR_BYTES, sector % WORD, true);
      if (!this.#isShort) view.setUint32(index * VECTOR_BYTES + 4, sector / WORD, true);
    }
    return this.#encryption === null ? vectors : this.#encryption.update(vectors);
  }

  /** Ends their use. */
  wipe(): void {
    this.#encryption?.final();
  }
}
