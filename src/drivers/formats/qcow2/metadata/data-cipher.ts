// SPDX-License-Identifier: Apache-2.0
// Guest data on its way to and from the clusters of an encrypted image.
//
// With LUKS sectors are counted by their place in the file that holds the data, with the older AES
// method by the guest's; `Qcow2Image.readData` and `writeData` are the one place where data passes,
// but for bulk copies: lanes get the cipher with the place.
// What is written is encrypted in a copy, piece by piece, for the buffer is its owner's. The key
// outlives the instances of an image that is reopened, and is wiped with the last of them.

import { assert } from '../../../../base/index.js';
import type { RangeCipher } from '../../../../block/index.js';
import { makeSectorCipher, SECTOR_BYTES, sharedCipherKey } from '../../../../crypto/index.js';
import type { CipherKey, CipherSpec, SectorCipher } from '../../../../crypto/index.js';

/** Where a byte of guest data is. */
export interface DataPlace {
  readonly hostOffset: number;
  readonly guestOffset: number;
}

export type EncryptionFormat = 'aes' | 'luks';

/** Bytes that are encrypted and written at a time. */
export const CRYPT_PIECE_BYTES = 1024 * 1024;

export class DataCipher {
  readonly format: EncryptionFormat;
  readonly #cipher: SectorCipher;
  readonly #key: CipherKey;
  #holders = 0;

  /** Takes the key: wiped at once, and the copy by the last release(). */
  constructor(format: EncryptionFormat, spec: CipherSpec, key: Uint8Array) {
    this.format = format;
    this.#key = sharedCipherKey({ spec, key, sectorBytes: SECTOR_BYTES });
    key.fill(0);
    this.#cipher = makeSectorCipher(this.#key);
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

  /** In place. */
  decrypt(buffer: Uint8Array, sector: number): void {
    this.#cipher.decrypt(buffer, sector);
  }

  encrypted(buffer: Uint8Array, sector: number): Uint8Array {
    const copy = new Uint8Array(buffer);
    this.#cipher.encrypt(copy, sector);
    return copy;
  }
}
