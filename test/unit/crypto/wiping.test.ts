// SPDX-License-Identifier: Apache-2.0
// Keys that are not handed out are zeroes afterwards, whether it went well or not.
import { describe, expect, it, vi } from 'vitest';
import { BlockError, SeededRandom } from '../../../src/base/index.js';
import { runLaneTask, ScratchBuffer } from '../../../src/block/copy/lane-task.js';
import type { LaneTask } from '../../../src/block/copy/lane-task.js';
import { runNatively } from '../../../src/block/copy/native-lanes.js';
import { CipherTable, deriveKey, makeTwin, NativeSectors } from '../../../src/crypto/index.js';
import type { DeriveKey } from '../../../src/crypto/index.js';
import { formatLuks, unlockAny } from '../../../src/crypto/luks/index.js';
import type { LuksArea, LuksHeader } from '../../../src/crypto/luks/index.js';
import { unlockSlot2 } from '../../../src/crypto/luks2/index.js';
import type { Luks2Keyslot } from '../../../src/crypto/luks2/index.js';
import type { NativeAddon } from '../../../src/host/index.js';
import { QUICK_SPEC } from '../../helpers/luks-images.js';

const WISH = {
  spec: QUICK_SPEC,
  hash: 'sha256',
  password: Buffer.from('open'),
  slotIterations: 1,
  digestIterations: 1,
  detached: false,
} as const;
const KEY_BYTES = 16;

/** Remembers each key that went through it, and fails at the call with that number. */
class Watch {
  readonly derived: Uint8Array[] = [];
  /** Passwords that are master keys. */
  readonly masterKeys: Uint8Array[] = [];
  readonly random = new SeededRandom(3);
  #calls = 0;
  readonly #failing: number;

  constructor(failing = Infinity) {
    this.#failing = failing;
  }

  readonly derive: DeriveKey = async (wish) => {
    this.#calls += 1;
    if (wish.password !== WISH.password && wish.password.length === KEY_BYTES) {
      this.masterKeys.push(wish.password);
    }
    if (this.#calls === this.#failing) throw new Error('derived no more');
    const key = await deriveKey(wish);
    if (wish.length === KEY_BYTES) this.derived.push(key);
    return key;
  };

  readonly fill = (buffer: Uint8Array): void => this.random.fill(buffer);
}

const isWiped = (key: Uint8Array): boolean => key.every((byte) => byte === 0);

async function formatted(): Promise<{ area: LuksArea; header: LuksHeader }> {
  const { header, material } = await formatLuks(WISH, new Watch());
  const read = (): Promise<Uint8Array> => Promise.resolve(material.slice());
  return { area: { read } as unknown as LuksArea, header };
}

describe('keys are wiped', () => {
  it('when an image was made: all but the one that is handed out', async () => {
    const watch = new Watch();
    const { masterKey } = await formatLuks(WISH, watch);
    expect(watch.derived.map(isWiped)).toEqual([true]);
    expect(watch.masterKeys).toEqual([masterKey]);
    expect(isWiped(masterKey)).toBe(false);
  });

  it.each([1, 2])('when derivation %d of a new image fails', async (failing) => {
    const watch = new Watch(failing);
    await expect(formatLuks(WISH, watch)).rejects.toThrow('derived no more');
    expect(watch.masterKeys.map(isWiped)).toEqual([true]);
  });

  it('when a password is right: all but the master key', async () => {
    const watch = new Watch();
    const unlocked = await unlockAny(await formatted(), WISH.password, watch.derive);
    expect(watch.derived.map(isWiped)).toEqual([true]);
    expect(watch.masterKeys).toEqual([unlocked?.masterKey]);
    expect(isWiped(watch.masterKeys[0] as Uint8Array)).toBe(false);
  });

  it('when a password is wrong', async () => {
    const watch = new Watch();
    expect(await unlockAny(await formatted(), Buffer.from('shut'), watch.derive)).toBeNull();
    expect([...watch.derived, ...watch.masterKeys].map(isWiped)).toEqual([true, true]);
  });

  it("when the master key's digest cannot be derived", async () => {
    const watch = new Watch(2);
    const opened = unlockAny(await formatted(), WISH.password, watch.derive);
    await expect(opened).rejects.toThrow('derived no more');
    expect([...watch.derived, ...watch.masterKeys].map(isWiped)).toEqual([true, true]);
  });
});

describe('keys of version 2 are wiped', () => {
  const kdf = { type: 'pbkdf2', hash: 'sha256', salt: new Uint8Array(8), iterations: 1 } as const;
  const keyslot = {
    number: 0,
    keyBytes: KEY_BYTES,
    areaOffset: 0,
    use: { spec: QUICK_SPEC, hash: 'sha256', kdf },
  } as unknown as Luks2Keyslot;
  const digest = { ...kdf, number: 0, value: new Uint8Array(32) };
  const header = { digest } as unknown as Parameters<typeof unlockSlot2>[0]['header'];
  const material = new Uint8Array(65_536);
  const area = { read: () => Promise.resolve(material.fill(3)) } as unknown as LuksArea;

  it.each([
    ['a password is wrong', Infinity],
    ['their digest cannot be derived', 2],
  ])('when %s', async (_, failing) => {
    const watch = new Watch(failing);
    const tools = { derive: watch.derive, argon2: (): never => expect.unreachable() };
    const opened = unlockSlot2({ area, header, keyslot }, WISH.password, tools);
    if (failing === 2) await expect(opened).rejects.toThrow('derived no more');
    else expect(await opened).toBeNull();
    const seen = [...watch.derived, ...watch.masterKeys, material];
    expect(seen.map(isWiped)).toEqual([true, true, true]);
  });
});

describe('the key of essiv', () => {
  it('is wiped with its cipher, which encrypts nothing then', () => {
    const seen: Uint8Array[] = [];
    const addon = {
      cryptRange(_way: number, _key: Uint8Array, vectorKey: Uint8Array): number {
        seen.push(vectorKey);
        return 0;
      },
    } as unknown as NativeAddon;
    const essiv = { ivGenerator: 'essiv', ivHash: 'sha256' } as const;
    const spec = { cipher: 'aes-256', mode: 'cbc', ...essiv } as const;
    const cipher = new NativeSectors(addon, { spec, key: new Uint8Array(32), sectorBytes: 512 });
    cipher.encrypt(new Uint8Array(512), 0);
    expect(seen.map(isWiped)).toEqual([false]);
    cipher.wipe();
    expect(seen.map(isWiped)).toEqual([true]);
    expect(() => cipher.encrypt(new Uint8Array(512), 0)).toThrow('not used after its end');
  });
});

describe('expanded keys of OpenSSL', () => {
  it.each(['ecb', 'cbc', 'xts'] as const)('are gone when a cipher was wiped: %s', (mode) => {
    const ivGenerator = mode === 'ecb' ? null : 'plain64';
    const spec = { cipher: 'aes-128', mode, ivGenerator, ivHash: null } as const;
    const key = new Uint8Array(mode === 'xts' ? 32 : 16).map((_, at) => at);
    const cipher = makeTwin({ spec, key, sectorBytes: 512 });
    cipher.encrypt(new Uint8Array(512), 0);
    cipher.wipe();
    for (const way of ['encrypt', 'decrypt'] as const) {
      expect(() => cipher[way](new Uint8Array(512), 0)).toThrow();
    }
  });
});

describe('ciphers of a task', () => {
  const spec = { ...QUICK_SPEC, cipher: 'aes-256' } as const;
  const cipher = { spec, key: new Uint8Array(32).fill(5), sectorBytes: 512 };
  const place = { file: 0, offset: 0, cipher: { index: 0, offset: 0 } };
  const task = (): LaneTask =>
    ({
      cancel: new Int32Array(1),
      ciphers: [cipher],
      steps: [
        {
          parts: [{ kind: 'data', length: 512, ...place }],
          length: 512,
          target: { kind: 'file', ...place },
          zeroGranularity: 0,
          skipZeroes: false,
          deflate: false,
        },
      ],
    }) as unknown as LaneTask;
  const read = (buffer: Uint8Array): number => buffer.fill(7).length;

  it.each(['written', 'error'])('end with it: %s', async (outcome) => {
    const wipe = vi.spyOn(CipherTable.prototype, 'wipe');
    const write = (): void => {
      if (outcome === 'error') throw new BlockError('no-space', 'full');
    };
    const files = [{ read, write }];
    const [result] = await runLaneTask(task(), files, new ScratchBuffer());
    expect(result?.outcome).toBe(outcome);
    const [table] = wipe.mock.contexts as CipherTable[];
    expect(() => table?.encrypt(place.cipher, new Uint8Array(512), 0)).toThrow();
    wipe.mockRestore();
  });

  it.each(['taken', 'refused'])('go to the addon in bytes that are wiped: %s', async (by) => {
    const seen: Uint8Array[] = [];
    const addon = {
      copyLater(_program: unknown, _cancel: unknown, _back: unknown, keys: Uint8Array): unknown {
        seen.push(keys, keys.slice());
        if (by === 'refused') throw new TypeError('a whole program is expected');
        return Promise.resolve(Float64Array.of(0, 0, 512, 0));
      },
    } as unknown as NativeAddon;
    const results = runNatively(addon, { task: task(), descriptors: [0] });
    if (by === 'refused') await expect(results).rejects.toThrow('a whole program');
    else expect(await results).toMatchObject([{ outcome: 'written' }]);
    expect(seen.map(isWiped)).toEqual([true, false]);
    expect(isWiped(cipher.key)).toBe(false);
  });
});
