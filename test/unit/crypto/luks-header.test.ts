// SPDX-License-Identifier: Apache-2.0
// LUKS headers: what is made is read again, and what is broken is named.
import fc from 'fast-check';
import { beforeAll, describe, expect, it } from 'vitest';
import { SeededRandom } from '../../../src/base/index.js';
import { deriveKey, HASH_NAMES, limitedDerive } from '../../../src/crypto/index.js';
import type { CipherSpec } from '../../../src/crypto/index.js';
import { mergeKey, mixStripes, splitKey } from '../../../src/crypto/luks/anti-forensic.js';
import { nativeAddon } from '../../../src/host/index.js';
import type { FormattedLuks, LuksHeader } from '../../../src/crypto/luks/index.js';
import {
  encodeLuksHeader,
  formatLuks,
  HEADER_BYTES,
  parseLuksHeader,
  unlockAny,
} from '../../../src/crypto/luks/index.js';

const SPEC: CipherSpec = {
  cipher: 'aes-128',
  mode: 'xts',
  ivGenerator: 'plain64',
  ivHash: null,
};
const PLACE = { detached: false } as const;
const random = new SeededRandom(7);
const fill = (buffer: Uint8Array): void => random.fill(buffer);

let made: FormattedLuks;
beforeAll(async () => {
  made = await formatLuks(
    {
      spec: SPEC,
      hash: 'sha256',
      password: Buffer.from('open'),
      slotIterations: 1000,
      digestIterations: 1000,
      detached: false,
    },
    { derive: deriveKey, fill },
  );
});

function areaOf({ header, material }: FormattedLuks): { area: never; header: LuksHeader } {
  const read = (): Promise<Uint8Array> => Promise.resolve(material.slice());
  return { area: { read } as never, header };
}

describe('a LUKS header', () => {
  it('is read as it was written', () => {
    const bytes = encodeLuksHeader(made.header);
    expect(bytes.length).toBe(HEADER_BYTES);
    const header = parseLuksHeader(bytes, PLACE);
    expect(header).toEqual(made.header);
    expect(encodeLuksHeader(header)).toEqual(bytes);
  });

  it('gives the master key to its password and to no other', async () => {
    const unlocked = await unlockAny(areaOf(made), Buffer.from('open'), deriveKey);
    expect(unlocked).toEqual({ slot: 0, masterKey: made.masterKey });
    expect(await unlockAny(areaOf(made), Buffer.from('opem'), deriveKey)).toBeNull();
  });

  it.each([
    ['magic', 0, 'Volume is not in LUKS format'],
    ['version', 7, 'LUKS version'],
    ['cipher name', 8, 'Algorithm'],
    ['key bytes', 111, 'key_bytes 97'],
    ['slot state', 211, 'Keyslot 0 state (active/disable) is corrupted (active'],
    ['stripes', 208 + 47, 'Keyslot 0 is corrupted (stripes 4065 != 4000)'],
  ])('is refused for its %s', (_, offset, text) => {
    const bytes = encodeLuksHeader(made.header);
    bytes[offset] = (bytes[offset] ?? 0) ^ 0x41;
    expect(() => parseLuksHeader(bytes, PLACE)).toThrow(text);
  });

  it.each([
    ['the header', 0],
    ['key material of keyslot 0', 4096],
    ['the payload', null],
  ])('is refused when key material lies on %s', (_, place) => {
    const { payloadOffset, keyslots } = made.header;
    const moved = keyslots.map((slot, index) =>
      index === 3 ? { ...slot, materialOffset: place ?? payloadOffset } : slot,
    );
    const bytes = encodeLuksHeader({ ...made.header, keyslots: moved });
    expect(() => parseLuksHeader(bytes, PLACE)).toThrow(/overlapping/);
  });

  it('of another program may name a hash where its vectors have none', () => {
    const bytes = encodeLuksHeader(made.header);
    bytes.set(Buffer.from('xts-plain64:sha256\0'), 40);
    expect(parseLuksHeader(bytes, PLACE)).toEqual(made.header);
  });

  it('is refused where no two keys of xts are of its length', () => {
    const bytes = encodeLuksHeader(made.header);
    bytes[111] = 31;
    const words = 'XTS cipher key length should be a multiple of 2';
    expect(() => parseLuksHeader(bytes, PLACE)).toThrow(words);
  });

  it('says how often its keys are hashed, even where nobody waits so long', async () => {
    const bytes = encodeLuksHeader(made.header);
    for (const at of [164, 212]) bytes.fill(0xff, at, at + 4);
    const header = parseLuksHeader(bytes, PLACE);
    expect(header.mkDigestIterations).toBe(2 ** 32 - 1);
    const place = { ...areaOf(made), header };
    for (const [limitSeconds, words] of [
      [60, /^Unlocking 'x' would take about \d+ s with the 4294967295 iterations of keyslot 0/],
      [10 ** 9, /^Unlocking 'x' is not possible: .* are more than 2147483647$/],
    ] as const) {
      const derive = limitedDerive({ image: 'x', limitSeconds });
      await expect(unlockAny(place, Buffer.from('open'), derive)).rejects.toThrow(words);
    }
  });

  it('is refused at every bit that changes what is read, or reads as something else', () => {
    const good = encodeLuksHeader(made.header);
    const shown = JSON.stringify(parseLuksHeader(good, PLACE));
    fc.assert(
      fc.property(fc.nat(164 * 8 - 1), (bit) => {
        const bytes = good.slice();
        bytes[bit >> 3] = (bytes[bit >> 3] ?? 0) ^ (1 << (bit & 7));
        try {
          const after = JSON.stringify(parseLuksHeader(bytes, PLACE));
          // Behind the NUL of a name anything may stand.
          if (after === shown) expect(bit).toBeGreaterThan(8 * 8);
        } catch (error) {
          expect(String(error)).toMatch(/LUKS|Keyslot|supported|cipher mode string|available/);
        }
      }),
      { numRuns: 200 },
    );
  });
});

describe('the anti-forensic splitter', () => {
  it('mixes stripes alike with the addon and without', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 100 }),
        fc.integer({ min: 0, max: 9 }),
        fc.nat(),
        fc.constantFrom(...HASH_NAMES),
        (length, count, seed, hash) => {
          const stripes = new Uint8Array(length * count);
          new SeededRandom(seed).fill(stripes);
          const [native, twin] = [new Uint8Array(length), new Uint8Array(length)];
          if (nativeAddon()?.mixStripes(hash, stripes, native) !== 0) return;
          mixStripes(stripes, twin, hash);
          expect(native).toEqual(twin);
        },
      ),
    );
  });

  it('gives back every key, and not without each stripe', () => {
    fc.assert(
      fc.property(
        fc.uint8Array({ minLength: 16, maxLength: 64 }),
        fc.constantFrom('sha1' as const, 'sha256' as const, 'sha512' as const),
        fc.integer({ min: 2, max: 30 }),
        fc.nat(),
        (key, hash, stripes, flip) => {
          const split = splitKey(key, { hash, stripes }, fill);
          expect(mergeKey(split, key.length, hash)).toEqual(key);
          const at = flip % split.length;
          split[at] = (split[at] ?? 0) ^ 1;
          expect(mergeKey(split, key.length, hash)).not.toEqual(key);
        },
      ),
      { numRuns: 40 },
    );
  });
});
