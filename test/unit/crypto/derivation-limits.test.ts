// SPDX-License-Identifier: Apache-2.0
// A derivation that an image wants is refused when it would take too long, ends when it is
// cancelled, and never holds up the event loop; how many iterations take how long is measured.
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { calibrated, deriveKey, limitedDerive } from '../../../src/crypto/index.js';
import type { Derivation, DeriveKey } from '../../../src/crypto/index.js';
import { luksIterations, luksWish } from '../../../src/crypto/luks/index.js';

const MOST = 2 ** 31 - 1;
const wish = (more: Partial<Derivation> = {}): Derivation => ({
  hash: 'sha512',
  password: Buffer.from('abc'),
  salt: new Uint8Array(32),
  iterations: MOST,
  length: 64,
  ...more,
});

describe('a limit of time', () => {
  /** Another for each test: what a kind of derivation costs is remembered. */
  let length = 100;
  /** A million iterations take a second, it says. */
  function slow(): { derive: DeriveKey; derived: (string | undefined)[]; length: number } {
    const derived: (string | undefined)[] = [];
    length += 1;
    const derive: DeriveKey = (asked) => {
      if (asked.origin !== undefined) derived.push(asked.origin);
      asked.onCost?.(asked.iterations / 1000);
      return Promise.resolve(new Uint8Array(asked.length));
    };
    return { derive, derived, length };
  }

  it('names image, keyslot, iterations, estimate and option', async () => {
    const { derive, derived, ...kind } = slow();
    const limited = limitedDerive({ image: 'x.luks' }, derive);
    const asked = wish({ ...kind, iterations: 90_000_000, origin: 'keyslot 3' });
    await expect(limited(asked)).rejects.toMatchObject({
      kind: 'too-large',
      message:
        "Unlocking 'x.luks' would take about 90 s with the 90000000 iterations of keyslot 3, " +
        "more than the 60 s of 'key-derivation-limit'",
    });
    expect(derived).toEqual([]);
  });

  it('counts everything that one unlock derives', async () => {
    const { derive, derived, ...kind } = slow();
    const limited = limitedDerive({ image: 'x.luks', limitSeconds: 75 }, derive);
    const each = (origin: string): Promise<unknown> =>
      limited(wish({ ...kind, iterations: 30_000_000, origin }));
    await each('keyslot 0');
    await each('keyslot 1');
    await expect(each('keyslot 2')).rejects.toThrow('about 90 s');
    expect(derived).toEqual(['keyslot 0', 'keyslot 1']);
  });

  it('can be raised, and leaves alone what the user asked for', async () => {
    const { derive, ...kind } = slow();
    const asked = wish({ ...kind, iterations: 90_000_000, origin: 'keyslot 0' });
    const raised = limitedDerive({ image: 'x.luks', limitSeconds: 90n }, derive);
    expect(await raised(asked)).toHaveLength(kind.length);
    const own = limitedDerive({ image: 'x.luks', limitSeconds: 1 }, derive);
    expect(await own(wish({ ...kind }))).toHaveLength(kind.length);
    expect(() => limitedDerive({ image: 'x.luks', limitSeconds: 0 })).toThrow('at least 1 second');
  });

  it('costs nothing where an image asks for the usual', async () => {
    const { derive } = slow();
    let calls = 0;
    const counted: DeriveKey = (asked) => {
      calls += 1;
      return derive(asked);
    };
    const limited = limitedDerive({ image: 'x.luks' }, counted);
    await limited(wish({ iterations: 25_000, origin: 'keyslot 0' }));
    expect(calls).toBe(1);
  });

  it('refuses a billion iterations on this machine', async () => {
    for (const hash of ['sha256', 'sha512'] as const) {
      const limited = limitedDerive({ image: 'x.luks', limitSeconds: 1 });
      const asked = limited(wish({ hash, origin: 'keyslot 7' }));
      await expect(asked).rejects.toThrow('2147483647 iterations of keyslot 7');
    }
  });
});

describe('a derivation that takes long', () => {
  // The addon has no md5: that is derived in a process, as everything is without the addon.
  it.each(['sha256', 'sha512', 'ripemd160', 'md5'] as const)(
    'leaves the event loop free and ends when it is cancelled: %s',
    async (hash) => {
      const cancel = new AbortController();
      let hasEnded = false;
      const derived = deriveKey(wish({ hash }), cancel.signal).finally(() => {
        hasEnded = true;
      });
      for (let turn = 0; turn < 200; turn += 1) {
        await new Promise((resolve) => setImmediate(resolve));
      }
      expect(hasEnded).toBe(false);
      cancel.abort();
      await expect(derived).rejects.toMatchObject({ kind: 'cancelled' });
    },
  );

  it('that waits for others is cancelled as well', async () => {
    const [first, last] = [new AbortController(), new AbortController()];
    const others = [1, 2].map(() => deriveKey(wish({ hash: 'sha256' }), first.signal));
    const derived = deriveKey(wish({ iterations: 1 }), last.signal);
    last.abort();
    await expect(derived).rejects.toMatchObject({ kind: 'cancelled' });
    const next = deriveKey(wish({ iterations: 1 }));
    first.abort();
    for (const other of await Promise.allSettled(others)) expect(other.status).toBe('rejected');
    expect(await next).toHaveLength(64);
  });
});

describe('a number of iterations', () => {
  const derive: DeriveKey = ({ length, iterations, onCost }) => {
    // Every other sample is disturbed.
    onCost?.((iterations / (length === 20 ? 2000 : 1000)) * (1 + (iterations % 2)));
    return Promise.resolve(new Uint8Array(length));
  };

  it('follows from the time, for each length of key', async () => {
    const asked = { ...luksWish({}), iterTimeMs: 160 };
    expect(await luksIterations(asked, derive, {})).toEqual({
      slotIterations: 160_000,
      digestIterations: 40_000,
    });
  });

  it('is that of eight samples, also when a late one was too short', async () => {
    // A counterexample of the law below: all but one sample take a little longer than they should.
    let calls = 0;
    const timed: DeriveKey = ({ iterations, length, onCost }) => {
      onCost?.((iterations / 6554) * (calls % 5 === 0 ? 1 : 1.2));
      calls += 1;
      return Promise.resolve(new Uint8Array(length));
    };
    const kind = { hash: 'sha512', length: 20, least: 1, ms: 1000 } as const;
    expect(await calibrated(kind, timed)).toBe(6_554_000);
  });

  it('is that of the time asked for, and measured in 35 ms, on every machine', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.double({ min: 300, max: 1_000_000, noNaN: true }),
        // How much longer each sample takes than it should; time and again one is undisturbed.
        fc.array(fc.double({ min: 1, max: 20, noNaN: true }), { minLength: 1, maxLength: 6 }),
        fc.integer({ min: 10, max: 10_000 }),
        async (perMs, disturbances, ms) => {
          let [calls, spent] = [0, 0];
          const timed: DeriveKey = ({ iterations, length, onCost }) => {
            const factor = [1, ...disturbances][calls % (disturbances.length + 1)] ?? 1;
            calls += 1;
            spent += iterations / perMs;
            onCost?.((iterations / perMs) * factor);
            return Promise.resolve(new Uint8Array(length));
          };
          const kind = { hash: 'sha512', length: 20, least: 1 } as const;
          const wanted = Math.round(perMs * ms);
          fc.pre(wanted <= MOST);
          const given = await calibrated({ ...kind, ms }, timed);
          expect(Math.abs(given - wanted)).toBeLessThanOrEqual(1 + wanted * 1e-9);
          expect(spent).toBeLessThanOrEqual(35);
        },
      ),
    );
  });

  it('comes from a clock that stands still for 4 ms at a time as well', async () => {
    let now = 0;
    const coarse: DeriveKey = ({ iterations, length, onCost }) => {
      const from = Math.floor(now / 4) * 4;
      now += iterations / 1000;
      onCost?.(Math.floor(now / 4) * 4 - from);
      return Promise.resolve(new Uint8Array(length));
    };
    const kind = { hash: 'sha512', length: 20, least: 1, ms: 100 } as const;
    const given = await calibrated(kind, coarse);
    expect(given).toBeGreaterThan(50_000);
    expect(given).toBeLessThan(200_000);
  });

  it('is a thousand at least, and measured nowhere where the host has a rate', async () => {
    const never: DeriveKey = () => Promise.reject(new Error('not asked for'));
    const asked = { ...luksWish({}), iterTimeMs: 2000 };
    const given = await luksIterations(asked, never, { iterationsPerMs: 1 });
    expect(given).toEqual({ slotIterations: 2000, digestIterations: 1000 });
    const none = await luksIterations({ ...asked, iterTimeMs: 0 }, derive, {});
    expect(none).toEqual({ slotIterations: 1000, digestIterations: 1000 });
  });

  it.each([
    [2 ** 64, '1000000 too large to scale'],
    [Number.MAX_SAFE_INTEGER, '1000000 too large to scale'],
    [MOST / 999, '2149633280 larger than 2147483647'],
  ])('is refused for %d ms', async (ms, why) => {
    const kind = { hash: 'sha256', length: 64, ms, least: 1 } as const;
    const text = `PBKDF iterations ${why}: Numerical result out of range`;
    await expect(calibrated(kind, derive)).rejects.toThrow(text);
  });
});
