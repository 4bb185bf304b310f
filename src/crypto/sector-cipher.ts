// SPDX-License-Identifier: Apache-2.0
// Encrypts and decrypts whole sectors in place, many in one call: the twin in TypeScript.
//
// One cipher object per sector would be the price of everything, so there is none: XTS takes two
// passes of ECB over all blocks (tweaks, then data) and doubles the tweaks in between; CBC
// decrypts in one pass of ECB and encrypts through one chain whose end is taken out of the next
// sector's first block. Sources: IEEE 1619 (XTS), LUKS on-disk format 1.2.3.
//
// OpenSSL wipes an expanded key when its object is told that nothing follows. What is decrypted may
// be key material, so copies of it are wiped as well.

import { createCipheriv, createDecipheriv } from 'node:crypto';
import type { Cipher } from 'node:crypto';

import { assert } from '../base/index.js';
import { nativeAddon } from '../host/index.js';
import { InitialVectors } from './initial-vector.js';
import type { CipherSpec } from './names.js';
import { keyBytesOf } from './names.js';
import { canCryptNatively, NativeSectors } from './native-sectors.js';

export const BLOCK_BYTES = 16;
/** What LUKS version 1 and qcow2 encrypt at a time. */
export const SECTOR_BYTES = 512;
/** What the twin goes over several times stays in a core's cache. */
const SLICE_BYTES = 32_768;

/** How initial vectors are numbered where they do not just count sectors from 0 on. */
export interface VectorNumbers {
  /** That of sector 0, up to 2^52. */
  readonly first: number;
  /** They count 512 bytes, however long sectors are. */
  readonly count512: boolean;
}

/** A spec and its key: all that a lane needs. The holder wipes the key. */
export interface CipherKey {
  readonly spec: CipherSpec;
  readonly key: Uint8Array;
  /** 512 to 4,096, a power of two. */
  readonly sectorBytes: number;
  readonly vectors?: VectorNumbers;
}

/** With the key copied into shared memory: threads see it where it is, until it is wiped. */
export function sharedCipherKey(cipher: CipherKey): CipherKey {
  const key = new Uint8Array(new SharedArrayBuffer(cipher.key.length));
  key.set(cipher.key);
  return { ...cipher, key };
}

/** One key, ready for use; not shared between threads. */
export interface SectorCipher {
  readonly sectorBytes: number;
  /** Whole sectors, in place; `sector` is the number of the first, up to 2^53 − 1. */
  encrypt(data: Uint8Array, sector: number): void;
  decrypt(data: Uint8Array, sector: number): void;
  /** Ends its use: what was made of the key is gone. The key itself is its holder's. */
  wipe(): void;
}

/** The two directions of one block cipher, over any number of blocks. */
interface Blocks {
  encrypt(blocks: Uint8Array): Buffer;
  decrypt(blocks: Uint8Array): Buffer;
  wipe(): void;
}

/** By the addon where that is to be had. The key is not copied: it has to stay until the end. */
export function makeSectorCipher(cipher: CipherKey): SectorCipher {
  requireFitting(cipher);
  const addon = nativeAddon();
  if (addon === null || !canCryptNatively(addon)) return makeTwin(cipher);
  return new NativeSectors(addon, cipher);
}

function requireFitting({ spec, key, sectorBytes }: CipherKey): void {
  assert(key.length === keyBytesOf(spec), 'the key fits the cipher');
  assert(sectorBytes % BLOCK_BYTES === 0 && sectorBytes > 0, 'sectors are whole blocks');
}

/** The same without the addon. */
export function makeTwin(cipher: CipherKey): SectorCipher {
  requireFitting(cipher);
  const { spec, key, sectorBytes } = cipher;
  if (spec.mode === 'ecb') return new EcbSectors(ecbBlocks(spec, key), sectorBytes);
  return spec.mode === 'cbc' ? new CbcSectors(cipher) : new XtsSectors(cipher);
}

function ecbBlocks({ cipher }: CipherSpec, key: Uint8Array): Blocks {
  const encryption = createCipheriv(`${cipher}-ecb`, key, null).setAutoPadding(false);
  const decryption = createDecipheriv(`${cipher}-ecb`, key, null).setAutoPadding(false);
  return {
    encrypt: (blocks) => encryption.update(blocks),
    decrypt: (blocks) => decryption.update(blocks),
    wipe() {
      encryption.final();
      decryption.final();
    },
  };
}

class EcbSectors implements SectorCipher {
  readonly sectorBytes: number;
  readonly #blocks: Blocks;

  constructor(blocks: Blocks, sectorBytes: number) {
    this.#blocks = blocks;
    this.sectorBytes = sectorBytes;
  }

  encrypt(data: Uint8Array): void {
    requireWhole(data, this.sectorBytes);
    data.set(this.#blocks.encrypt(data));
  }

  decrypt(data: Uint8Array): void {
    requireWhole(data, this.sectorBytes);
    const plain = this.#blocks.decrypt(data);
    data.set(plain);
    plain.fill(0);
  }

  wipe(): void {
    this.#blocks.wipe();
  }
}

class CbcSectors implements SectorCipher {
  readonly sectorBytes: number;
  readonly #vectors: InitialVectors;
  readonly #blocks: Blocks;
  readonly #chain: Cipher;
  /** The last block that went out of the chain; it is mixed into what comes next. */
  readonly #last = new Uint8Array(BLOCK_BYTES);

  constructor(cipher: CipherKey) {
    const { spec, key, sectorBytes } = cipher;
    this.sectorBytes = sectorBytes;
    this.#vectors = new InitialVectors(cipher);
    this.#blocks = ecbBlocks(spec, key);
    const zero = new Uint8Array(BLOCK_BYTES);
    this.#chain = createCipheriv(`${spec.cipher}-cbc`, key, zero).setAutoPadding(false);
  }

  encrypt(data: Uint8Array, sector: number): void {
    const { sectorBytes } = this;
    requireWhole(data, sectorBytes);
    const vectors = this.#vectors.of(sector, data.length / sectorBytes);
    for (let start = 0; start < data.length; start += sectorBytes) {
      const part = data.subarray(start, start + sectorBytes);
      const vector = (start / sectorBytes) * BLOCK_BYTES;
      for (let at = 0; at < BLOCK_BYTES; at += 1) {
        part[at] = (part[at] ?? 0) ^ (vectors[vector + at] ?? 0) ^ (this.#last[at] ?? 0);
      }
      const out = this.#chain.update(part);
      part.set(out);
      this.#last.set(out.subarray(sectorBytes - BLOCK_BYTES));
    }
  }

  decrypt(data: Uint8Array, sector: number): void {
    const { sectorBytes } = this;
    requireWhole(data, sectorBytes);
    const vectors = this.#vectors.of(sector, data.length / sectorBytes);
    const before = new Uint8Array(data.length);
    before.set(data.subarray(0, data.length - BLOCK_BYTES), BLOCK_BYTES);
    for (let start = 0, vector = 0; start < data.length; start += sectorBytes) {
      before.set(vectors.subarray(vector, vector + BLOCK_BYTES), start);
      vector += BLOCK_BYTES;
    }
    const mixed = this.#blocks.decrypt(data);
    mixIn(mixed, before);
    data.set(mixed);
    mixed.fill(0);
  }

  wipe(): void {
    this.#vectors.wipe();
    this.#blocks.wipe();
    this.#chain.final();
  }
}

class XtsSectors implements SectorCipher {
  readonly sectorBytes: number;
  readonly #vectors: InitialVectors;
  readonly #data: Blocks;
  readonly #tweak: Blocks;
  /** Used again by the next slice, which is mixed there wherever in memory it lies. */
  #slice = new Int32Array(0);
  #tweaks = new Int32Array(0);

  constructor(cipher: CipherKey) {
    const { spec, key, sectorBytes } = cipher;
    this.sectorBytes = sectorBytes;
    this.#vectors = new InitialVectors(cipher);
    const half = key.length / 2;
    this.#data = ecbBlocks(spec, key.subarray(0, half));
    this.#tweak = ecbBlocks(spec, key.subarray(half));
  }

  encrypt(data: Uint8Array, sector: number): void {
    this.#eachSlice(data, sector, (slice) => this.#data.encrypt(slice));
  }

  decrypt(data: Uint8Array, sector: number): void {
    this.#eachSlice(data, sector, (slice) => this.#data.decrypt(slice));
  }

  wipe(): void {
    this.#vectors.wipe();
    this.#data.wipe();
    this.#tweak.wipe();
    this.#slice.fill(0);
    this.#tweaks.fill(0);
  }

  #eachSlice(data: Uint8Array, sector: number, crypt: (slice: Uint8Array) => Buffer): void {
    const { sectorBytes } = this;
    requireWhole(data, sectorBytes);
    const step = Math.max(1, Math.floor(SLICE_BYTES / sectorBytes)) * sectorBytes;
    for (let start = 0; start < data.length; start += step) {
      const slice = data.subarray(start, start + step);
      if (this.#slice.length * 4 < slice.length) {
        this.#slice = new Int32Array(slice.length / 4);
        this.#tweaks = new Int32Array(slice.length / 4);
      }
      const bytes = new Uint8Array(this.#slice.buffer, 0, slice.length);
      bytes.set(slice);
      this.#mixTweaks(slice.length / sectorBytes, sector + start / sectorBytes);
      const mixed = crypt(bytes);
      mixIn(mixed, new Uint8Array(this.#tweaks.buffer));
      slice.set(mixed);
      mixed.fill(0);
    }
  }

  /** One tweak for each block: that of the sector, then each the double of the one before. */
  #mixTweaks(count: number, sector: number): void {
    const words = this.#slice;
    const tweaks = this.#tweaks;
    const first = this.#tweak.encrypt(this.#vectors.of(sector, count));
    const source = new DataView(first.buffer, first.byteOffset, first.byteLength);
    const perSector = this.sectorBytes / 4;
    for (let index = 0; index < count; index += 1) {
      const at = index * BLOCK_BYTES;
      let a = source.getInt32(at, true);
      let b = source.getInt32(at + 4, true);
      let c = source.getInt32(at + 8, true);
      let d = source.getInt32(at + 12, true);
      const end = (index + 1) * perSector;
      for (let word = index * perSector; word < end; word += 4) {
        tweaks[word] = a;
        tweaks[word + 1] = b;
        tweaks[word + 2] = c;
        tweaks[word + 3] = d;
        words[word] = (words[word] as number) ^ a;
        words[word + 1] = (words[word + 1] as number) ^ b;
        words[word + 2] = (words[word + 2] as number) ^ c;
        words[word + 3] = (words[word + 3] as number) ^ d;
        const carry = (d >> 31) & 0x87;
        d = (d << 1) | (c >>> 31);
        c = (c << 1) | (b >>> 31);
        b = (b << 1) | (a >>> 31);
        a = (a << 1) ^ carry;
      }
    }
  }
}

/** Four bytes at a time: both begin where Node has put a buffer of theirs. */
function mixIn(target: Uint8Array, other: Uint8Array): void {
  const count = target.length / 4;
  const words = new Int32Array(target.buffer, target.byteOffset, count);
  const others = new Int32Array(other.buffer, other.byteOffset, count);
  // No index is past the end, which the types do not know; to ask would take time.
  for (let at = 0; at < count; at += 1) words[at] = (words[at] as number) ^ (others[at] as number);
}

function requireWhole(data: Uint8Array, sectorBytes: number): void {
  assert(data.length % sectorBytes === 0, 'whole sectors are encrypted');
}
