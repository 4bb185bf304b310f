// SPDX-License-Identifier: Apache-2.0
// Guest data on its way to and from the clusters of an encrypted image.
//
// With LUKS sectors are counted by their place in the file that holds the data, with the older AES
// method by the guest's; `Qcow2Image.readData` and `writeData` are the one place where data passes,
// but for bulk copies: lanes get the cipher with the place.
// What is written is encrypted in a copy, piece by piece, for the buffer is its owner's. The key
// outlives the instances of an image that is reopened, and is wiped with the last of them.

import { assert } from '../../../../base/index.js';
import type { Eventually } from '../../../../base/index.js';
import { yieldToLoop } from '../../../../block/copy/index.js';
import type { RangeCipher } from '../../../../block/index.js';
import { makeSectorCipher, SECTOR_BYTES, sharedCipherKey } from '../../../../crypto/index.js';
import type { CipherKey, CipherSpec, SectorCipher } from '../../../../crypto/index.js';
import { isSameVolume } from '../../../../crypto/luks/index.js';
import type { LuksHeader } from '../../../../crypto/luks/index.js';

/** Where a byte of guest data is. */
export interface DataPlace {
  readonly hostOffset: number;
  readonly guestOffset: number;
}

export type EncryptionFormat = 'aes' | 'luks';

/** Bytes that are decrypted, or encrypted and written, in one turn of the event loop. */
export const CRYPT_PIECE_BYTES = 1024 * 1024;

/** How it is encrypted, and by which volume's key; that is not known of the older method. */
export type Encryption =
  | { readonly format: 'aes' }
  | { readonly format: 'luks'; readonly volume: LuksHeader };

export class DataCipher {
  readonly encryption: Encryption;
  readonly #cipher: SectorCipher;
  readonly #key: CipherKey;
  #holders = 0;

  /** Takes the key: wiped at once, and the copy by the last release(). */
  constructor(encryption: Encryption, spec: CipherSpec, key: Uint8Array) {
    this.encryption = encryption;
    this.#key = sharedCipherKey({ spec, key, sectorBytes: SECTOR_BYTES });
    key.fill(0);
    this.#cipher = makeSectorCipher(this.#key);
  }

  get format(): EncryptionFormat {
    return this.encryption.format;
  }

  /** Whether data that is encrypted so is encrypted with this key. */
  fits(other: Encryption): boolean {
    const own = this.encryption;
    if (own.format === 'aes' || other.format === 'aes') return own.format === other.format;
    return isSameVolume(own.volume, other.volume);
  }

  /** One more instance of the image uses it. */
  hold(): void {
    this.#holders += 1;
  }

  release(): void {
    assert(this.#holders > 0, 'a key is released by those who hold it');
    this.#holders -= 1;
    if (this.#holders > 0) return;
    this.#cipher.wipe();
    this.#key.key.fill(0);
  }

  /** For what is read and written past the image. */
  rangeAt({ hostOffset, guestOffset }: DataPlace): RangeCipher {
    return { key: this.#key, offset: this.format === 'luks' ? hostOffset : guestOffset };
  }

  /** The number of the sector at a place, which is the start of one. */
  sectorOf(place: DataPlace): number {
    const { offset } = this.rangeAt(place);
    assert(offset % SECTOR_BYTES === 0, 'encrypted data is read and written in sectors');
    return offset / SECTOR_BYTES;
  }

  /** In place; other work gets its turn between pieces. */
  decrypt(buffer: Uint8Array, sector: number): Eventually<void> {
    if (buffer.length > CRYPT_PIECE_BYTES) return this.#decryptPieces(buffer, sector);
    this.#cipher.decrypt(buffer, sector);
    return undefined;
  }

  async #decryptPieces(buffer: Uint8Array, sector: number): Promise<void> {
    for (let start = 0; start < buffer.length; start += CRYPT_PIECE_BYTES) {
      const piece = buffer.subarray(start, start + CRYPT_PIECE_BYTES);
      this.#cipher.decrypt(piece, sector + start / SECTOR_BYTES);
      await yieldToLoop();
    }
  }

  encrypted(buffer: Uint8Array, sector: number): Uint8Array {
    const copy = new Uint8Array(buffer);
    this.#cipher.encrypt(copy, sector);
    return copy;
  }
}
