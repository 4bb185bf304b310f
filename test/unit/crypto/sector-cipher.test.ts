// SPDX-License-Identifier: Apache-2.0
// Sectors in bulk are what one cipher object for each sector gives.
import { createCipheriv, createHash } from 'node:crypto';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { CipherKey, CipherSpec, SectorCipher } from '../../../src/crypto/index.js';
import {
  canCryptNatively,
  keyBytesOf,
  makeSectorCipher,
  makeTwin,
  NativeSectors,
} from '../../../src/crypto/index.js';
import { nativeAddon } from '../../../src/host/index.js';

const SPECS: readonly CipherSpec[] = [
  { cipher: 'aes-256', mode: 'xts', ivGenerator: 'plain64', ivHash: null },
  { cipher: 'aes-128', mode: 'xts', ivGenerator: 'plain', ivHash: null },
  { cipher: 'aes-256', mode: 'cbc', ivGenerator: 'essiv', ivHash: 'sha256' },
  { cipher: 'aes-192', mode: 'cbc', ivGenerator: 'plain64', ivHash: null },
  { cipher: 'aes-128', mode: 'cbc', ivGenerator: 'plain', ivHash: null },
  { cipher: 'aes-128', mode: 'xts', ivGenerator: 'essiv', ivHash: 'sha256' },
  { cipher: 'aes-128', mode: 'ecb', ivGenerator: null, ivHash: null },
];

/** Every way through this program; without the addon or its instructions the twin alone. */
function allWays(key: CipherKey): readonly SectorCipher[] {
  const addon = nativeAddon();
  const ways = [makeSectorCipher(key), makeTwin(key)];
  if (addon === null || !canCryptNatively(addon)) return ways;
  return [...ways, new NativeSectors(addon, key, 'narrow')];
}

/** One sector through OpenSSL's own mode. */
function reference(spec: CipherSpec, key: Uint8Array, plain: Uint8Array, sector: number): Buffer {
  const iv = Buffer.alloc(16);
  iv.writeUInt32LE(sector % 2 ** 32);
  if (spec.ivGenerator !== 'plain') iv.writeUInt32LE(Math.floor(sector / 2 ** 32), 4);
  const vector = spec.ivHash === null ? iv : encryptedBy(spec.ivHash, key, iv);
  const cipher = createCipheriv(`${spec.cipher}-${spec.mode}`, key, usesVector(spec, vector));
  return cipher.setAutoPadding(false).update(plain);
}

function usesVector({ mode }: CipherSpec, vector: Buffer): Buffer | null {
  return mode === 'ecb' ? null : vector;
}

function encryptedBy(hash: string, key: Uint8Array, iv: Buffer): Buffer {
  const essiv = createCipheriv('aes-256-ecb', createHash(hash).update(key).digest(), null);
  return essiv.setAutoPadding(false).update(iv);
}

describe('sectors in bulk', () => {
  it.each(SPECS)('are those of one cipher each: $cipher $mode $ivGenerator', (spec) => {
    fc.assert(
      fc.property(
        fc.uint8Array({ minLength: keyBytesOf(spec), maxLength: keyBytesOf(spec) }),
        fc.oneof(fc.integer({ min: 1, max: 9 }), fc.integer({ min: 60, max: 140 })),
        fc.oneof(fc.nat(1000), fc.constantFrom(2 ** 32 - 2, 2 ** 32, 2 ** 44 + 5)),
        fc.constantFrom(512, 1024, 4096),
        fc.nat(3),
        fc.option(fc.constantFrom(0, 3, 2 ** 32 - 5, 2 ** 52), { nil: undefined }),
        (key, count, first, sectorBytes, misplaced, firstVector) => {
          // XTS refuses two equal keys.
          key[0] = (key[key.length / 2] ?? 0) ^ 1;
          const plain = Buffer.alloc(count * sectorBytes, 'some text of a guest ');
          const wanted = Buffer.alloc(plain.length);
          for (let start = 0; start < plain.length; start += sectorBytes) {
            const part = plain.subarray(start, start + sectorBytes);
            const sector = first + start / sectorBytes;
            const vector =
              firstVector === undefined ? sector : firstVector + (sector * sectorBytes) / 512;
            wanted.set(reference(spec, key, part, vector), start);
          }
          const vectors = { first: firstVector ?? 0, count512: true };
          const numbered = firstVector === undefined ? {} : { vectors };
          for (const cipher of allWays({ spec, key, sectorBytes, ...numbered })) {
            const data = new Uint8Array(plain.length + 4).subarray(misplaced, -4 + misplaced);
            data.set(plain);
            cipher.encrypt(data, first);
            expect(wanted.equals(data)).toBe(true);
            cipher.decrypt(data, first);
            expect(plain.equals(data)).toBe(true);
          }
        },
      ),
      { numRuns: 20 },
    );
  });

  it('have XTS with keys of 192 bits, which OpenSSL lacks', () => {
    const vectors = { ivGenerator: 'plain64', ivHash: null } as const;
    const spec: CipherSpec = { cipher: 'aes-192', mode: 'xts', ...vectors };
    const key = new Uint8Array(48).map((_, index) => index);
    const data = new Uint8Array(512).fill(7);
    const cipher = makeSectorCipher({ spec, key, sectorBytes: 512 });
    cipher.encrypt(data, 3);
    const tweak = createCipheriv('aes-192-ecb', key.subarray(24), null).setAutoPadding(false);
    const mask = tweak.update(Buffer.from([3, ...new Uint8Array(15)]));
    const block = mask.map((byte) => byte ^ 7);
    const ecb = createCipheriv('aes-192-ecb', key.subarray(0, 24), null).setAutoPadding(false);
    const first = ecb.update(block).map((byte, index) => byte ^ (mask[index] ?? 0));
    expect(Buffer.from(first).equals(data.subarray(0, 16))).toBe(true);
    cipher.decrypt(data, 3);
    expect(data.every((byte) => byte === 7)).toBe(true);
  });
});
