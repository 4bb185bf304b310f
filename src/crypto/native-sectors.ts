// SPDX-License-Identifier: Apache-2.0
// Sectors through the addon: the processor's own AES, some five times as fast as the twin.

import { assert } from '../base/index.js';
import type { NativeAddon } from '../host/index.js';
import { vectorKeyOf, vectorNumber } from './initial-vector.js';
import type { CipherMode } from './names.js';
import type { CipherKey, SectorCipher } from './sector-cipher.js';

const MODES: Readonly<Record<CipherMode, number>> = { ecb: 0, cbc: 1, xts: 2 };
const ENCRYPTS = 4;
const SHORT_VECTORS = 8;
const NARROW = 16;
const SHORT_COUNTS = 32;
const NO_BYTES = new Uint8Array(0);

/** How much of the processor is used; the bytes are the same. */
export type AesPath = 'widest' | 'narrow';

export class NativeSectors implements SectorCipher {
  readonly sectorBytes: number;
  readonly #addon: NativeAddon;
  readonly #way: number;
  readonly #cipher: CipherKey;
  readonly #vectorKey: Uint8Array;
  #isWiped = false;

  /** `path`: below `widest` only to try the others. */
  constructor(addon: NativeAddon, cipher: CipherKey, path: AesPath = 'widest') {
    const { spec, key, sectorBytes } = cipher;
    this.#addon = addon;
    this.#way = nativeWayOf(cipher) + (path === 'narrow' ? NARROW : 0);
    this.#cipher = cipher;
    this.#vectorKey = spec.ivHash === null ? NO_BYTES : vectorKeyOf(spec.ivHash, key);
    this.sectorBytes = sectorBytes;
  }

  encrypt(data: Uint8Array, sector: number): void {
    this.#run(this.#way + ENCRYPTS, data, sector);
  }

  decrypt(data: Uint8Array, sector: number): void {
    this.#run(this.#way, data, sector);
  }

  wipe(): void {
    this.#isWiped = true;
    this.#vectorKey.fill(0);
  }

  #run(way: number, data: Uint8Array, sector: number): void {
    const { sectorBytes } = this;
    const { key } = this.#cipher;
    assert(data.length % sectorBytes === 0, 'whole sectors are encrypted');
    // Its holder has wiped the key: nothing may be encrypted by zeroes.
    assert(!this.#isWiped, 'a cipher is not used after its end');
    const vector = vectorNumber(this.#cipher, sector);
    const status = this.#addon.cryptRange(way, key, this.#vectorKey, data, vector, sectorBytes);
    assert(status === 0, 'the processor has not lost its instructions');
  }
}

/** Mode and vectors as the addon numbers them. */
export function nativeWayOf({ spec, vectors }: CipherKey): number {
  const { mode, ivGenerator } = spec;
  const short = ivGenerator === 'plain' ? SHORT_VECTORS : 0;
  return MODES[mode] + short + (vectors?.count512 === true ? SHORT_COUNTS : 0);
}

/** Whether this processor can do it. */
export function canCryptNatively(addon: NativeAddon): boolean {
  return addon.cryptRange(MODES.ecb, new Uint8Array(16), NO_BYTES, NO_BYTES, 0, 512) === 0;
}
