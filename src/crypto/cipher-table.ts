// SPDX-License-Identifier: Apache-2.0
// The ciphers of one task: made when a step first needs them, on the thread that runs it.
//
// Targets are encrypted in whole sectors. What is read may be any bytes of a sector: the sectors
// around them are read and decrypted then.

import { assert, must } from '../base/index.js';
import { makeSectorCipher } from './sector-cipher.js';
import type { CipherKey, SectorCipher } from './sector-cipher.js';

/** Names a cipher of the task. */
export interface CipherPlace {
  readonly index: number;
  /** What the first byte of the range is to the cipher. */
  readonly offset: number;
}

/** Whole sectors, around the piece or the piece itself. */
export interface SectorCover {
  readonly bytes: Uint8Array;
  /** Bytes before the piece. */
  readonly head: number;
  /** Once the bytes are there; the piece is decrypted afterwards. */
  decrypt(): void;
}

export class CipherTable {
  readonly #keys: readonly CipherKey[];
  readonly #made: (SectorCipher | undefined)[] = [];

  constructor(keys: readonly CipherKey[]) {
    this.#keys = keys;
  }

  /** Whole sectors, in place, from `skip` bytes into the range on. */
  encrypt({ index, offset }: CipherPlace, piece: Uint8Array, skip: number): void {
    const cipher = this.#at(index);
    const sector = (offset + skip) / cipher.sectorBytes;
    assert(Number.isInteger(sector), 'whole sectors are encrypted');
    cipher.encrypt(piece, sector);
  }

  /** What has to be read for the piece, which is `skip` bytes into the range. */
  cover({ index, offset }: CipherPlace, piece: Uint8Array, skip: number): SectorCover {
    const cipher = this.#at(index);
    const { sectorBytes } = cipher;
    const start = offset + skip;
    const head = start % sectorBytes;
    const sector = (start - head) / sectorBytes;
    const length = Math.ceil((head + piece.length) / sectorBytes) * sectorBytes;
    if (length === piece.length) {
      return { bytes: piece, head, decrypt: () => cipher.decrypt(piece, sector) };
    }
    const bytes = new Uint8Array(length);
    return {
      bytes,
      head,
      decrypt() {
        cipher.decrypt(bytes, sector);
        piece.set(bytes.subarray(head, head + piece.length));
      },
    };
  }

  /** Ends their use. */
  wipe(): void {
    for (const cipher of this.#made) cipher?.wipe();
  }

  #at(index: number): SectorCipher {
    const made = this.#made[index];
    if (made !== undefined) return made;
    const cipher = makeSectorCipher(must(this.#keys[index], 'a range names a cipher of the task'));
    this.#made[index] = cipher;
    return cipher;
  }
}
