// SPDX-License-Identifier: Apache-2.0
// Keys from passwords, by whichever way, are those of OpenSSL.
import { pbkdf2Sync } from 'node:crypto';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { deriveKey, HASH_NAMES } from '../../../src/crypto/index.js';
import { nativeAddon } from '../../../src/host/index.js';

const bytes = (maxLength: number): fc.Arbitrary<Uint8Array> => fc.uint8Array({ maxLength });
const inAddon = HASH_NAMES.filter(
  (hash) =>
    (nativeAddon()?.deriveByDigest(
      hash,
      new Uint8Array(1),
      new Uint8Array(1),
      1,
      1,
      new Int32Array(1),
      new Float64Array(1),
    ) ?? null) !== null,
);

describe('keys from passwords', () => {
  it('are those of OpenSSL, whatever the lengths', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(...HASH_NAMES),
        bytes(200),
        bytes(200),
        fc.integer({ min: 1, max: 9 }),
        fc.integer({ min: 1, max: 200 }),
        async (hash, password, salt, iterations, length) => {
          const key = await deriveKey({ hash, password, salt, iterations, length });
          const wanted = pbkdf2Sync(password, salt, iterations, length, hash);
          expect(Buffer.compare(key, wanted)).toBe(0);
        },
      ),
    );
  });

  it.each(inAddon)('of %s, derived by the addon, can be given up', async (hash) => {
    const cancel = new AbortController();
    const [password, salt] = [new Uint8Array(4), new Uint8Array(32)];
    const wish = { hash, password, salt, iterations: 2 ** 31 - 1, length: 64 } as const;
    const derived = deriveKey(wish, cancel.signal);
    cancel.abort();
    await expect(derived).rejects.toMatchObject({ kind: 'cancelled' });
  });

  it.runIf(inAddon.includes('sha256'))('are derived by the addon wherever SHA-NI is', () => {
    expect(inAddon).toEqual(expect.arrayContaining(['sha1', 'sha224', 'sha256']));
  });
});
