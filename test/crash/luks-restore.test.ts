// SPDX-License-Identifier: Apache-2.0
// The power is cut at every write of a header restore: some password goes on opening the image.
import { beforeAll, describe, expect, it } from 'vitest';
import { SeededRandom } from '../../src/base/index.js';
import { deriveKey } from '../../src/crypto/index.js';
import type { CipherSpec } from '../../src/crypto/index.js';
import {
  encodeLuksHeader,
  formatLuks,
  headerAreaBytes,
  KeyslotEditor,
  materialBytes,
  parseAnyLuksHeader,
  readBackup,
  restoreHeader,
  unlockSlot,
} from '../../src/crypto/luks/index.js';
import { CutArea, PowerCut } from '../helpers/cut-area.js';
import { slotPasswords } from '../helpers/luks-images.js';
import { forEachSeed, runs } from '../helpers/seeds.js';

const SPEC: CipherSpec = { cipher: 'aes-128', mode: 'ecb', ivGenerator: null, ivHash: null };
const random = new SeededRandom(11);
/** Long buffers are noise enough as one byte each. */
const fill = (buffer: Uint8Array): void => {
  if (buffer.length > 1024) buffer.fill(random.below(256));
  else random.fill(buffer);
};
const tools = { derive: deriveKey, fill };

const wordOf = (name: string): Uint8Array => Buffer.from(name);

interface Volume {
  readonly base: Uint8Array;
  readonly masterKey: Uint8Array;
}

/** One keyslot, which `base` opens. */
async function makeVolume(): Promise<Volume> {
  const made = await formatLuks(
    {
      spec: SPEC,
      hash: 'sha1',
      password: wordOf('base'),
      slotIterations: 1,
      digestIterations: 1,
      detached: false,
    },
    tools,
  );
  const base = new Uint8Array(headerAreaBytes(SPEC));
  base.set(encodeLuksHeader(made.header));
  base.set(made.material, 4096);
  return { base, masterKey: made.masterKey };
}

/** The same volume with other keyslots: slot and password of each. */
async function withSlots(
  { base, masterKey }: Volume,
  slots: readonly (readonly [number, string])[],
): Promise<Uint8Array> {
  const area = new CutArea(base);
  const editor = new KeyslotEditor(area, parseAnyLuksHeader(base), tools);
  for (const [slot, word] of slots) {
    await editor.add(slot, { masterKey, password: wordOf(word), iterations: 1 });
  }
  if (!slots.some(([slot]) => slot === 0)) await editor.erase(0);
  return area.bytes;
}

/** Whether one of them opens it: words end with their keyslot, and a spare one is tried by all. */
async function opens(disk: Uint8Array, words: readonly string[]): Promise<boolean> {
  const header = parseAnyLuksHeader(disk);
  const place = { area: new CutArea(disk), header };
  for (const [slot, keyslot] of header.keyslots.entries()) {
    if (!keyslot.active) continue;
    for (const word of words.filter((each) => each.endsWith(String(slot)) || slot < 2)) {
      if ((await unlockSlot({ ...place, keyslot }, wordOf(word), deriveKey)) !== null) return true;
    }
  }
  return false;
}

const CASES = [
  { name: 'the only keyslot has another password', now: [[0, 'now0']], backup: [[0, 'then0']] },
  { name: 'the keyslot across two sectors', now: [[6, 'now6']], backup: [[6, 'then6']] },
  { name: 'the keyslot is another', now: [[7, 'now7']], backup: [[0, 'then0']] },
  {
    name: 'some come, some go, some change',
    now: [[0, 'now0'], [1, 'now1'], [6, 'same6']],
    backup: [[0, 'then0'], [6, 'same6'], [7, 'then7']],
  },
] as const;

describe('restoring a header of the same volume', () => {
  let volume: Volume;
  beforeAll(async () => {
    volume = await makeVolume();
  });

  it.each(CASES)('keeps a password that opens: $name', async ({ now, backup }) => {
    const present = await withSlots(volume, now);
    const copy = await withSlots(volume, backup);
    copy.fill(0x55, 600, 700);
    const words = [...now, ...backup].map(([, word]) => word);
    const whole = new CutArea(present);
    await restoreHeader(whole, copy);
    expect(Buffer.compare(whole.bytes, copy)).toBe(0);
    expect(whole.lengths.length).toBeGreaterThan(3);
    for (let writes = 0; writes < whole.lengths.length; writes += 1) {
      const area = new CutArea(present, writes);
      await expect(restoreHeader(area, copy)).rejects.toThrow(PowerCut);
      const disk = area.afterCut(random);
      expect(await opens(disk, words), `after ${writes} writes`).toBe(true);
      if (writes % 3 !== 1) continue;
      const again = new CutArea(disk);
      await restoreHeader(again, copy);
      expect(Buffer.compare(again.bytes, copy)).toBe(0);
    }
  });

  it('keeps a password that opens, whatever keyslots there are', async () => {
    await forEachSeed(runs(2, 30), async (seed) => {
      const dice = new SeededRandom(seed);
      const randomSlots = (name: string) => {
        const slots = Array.from({ length: 8 }, (_, slot) => slot).filter(() => dice.below(4) < 1);
        const some = slots.length > 0 ? slots : [dice.below(8)];
        return some.map((slot) => [slot, `${dice.below(3) === 0 ? 'same' : name}${slot}`] as const);
      };
      const [now, then] = [randomSlots('now'), randomSlots('then')];
      const present = await withSlots(volume, now);
      const copy = await withSlots(volume, then);
      const words: string[] = [...now, ...then].map(([, word]) => word);
      const whole = new CutArea(present);
      await restoreHeader(whole, copy);
      expect(Buffer.compare(whole.bytes, copy)).toBe(0);
      for (let writes = 0; writes < whole.lengths.length; writes += 1) {
        const area = new CutArea(present, writes);
        await expect(restoreHeader(area, copy)).rejects.toThrow(PowerCut);
        const disk = area.afterCut(dice);
        const found = await slotPasswords(disk, parseAnyLuksHeader(disk), words);
        expect(found.some((word) => words.includes(word)), found.join(' ')).toBe(true);
        const again = new CutArea(disk);
        await restoreHeader(again, copy);
        expect(Buffer.compare(again.bytes, copy)).toBe(0);
      }
    });
  });

  it('leaves a payload alone that begins in the last page of the backup', async () => {
    const header = parseAnyLuksHeader(volume.base);
    const last = header.keyslots.at(-1)?.materialOffset ?? 0;
    const payloadOffset = last + materialBytes(SPEC);
    const present = volume.base.slice();
    expect(payloadOffset).toBeLessThan(present.length);
    present.set(encodeLuksHeader({ ...header, payloadOffset }));
    const backup = present.slice();
    present.fill(0x77, payloadOffset);
    present.fill(0, 0, 6);
    for (const isSame of [true, false]) {
      const area = new CutArea(present);
      if (isSame) area.bytes.set(backup.subarray(0, 512));
      await restoreHeader(area, backup);
      expect(area.bytes.subarray(payloadOffset).every((byte) => byte === 0x77)).toBe(true);
      expect(Buffer.compare(area.bytes.subarray(0, last), backup.subarray(0, last))).toBe(0);
    }
  });

  it('writes nothing where nothing differs', async () => {
    const area = new CutArea(volume.base);
    await restoreHeader(area, await readBackup(area, parseAnyLuksHeader(volume.base)));
    expect(area.lengths.length).toBe(0);
  });
});

describe('restoring a header of another volume', () => {
  it('leaves a header only when all of it is there', async () => {
    const present = (await makeVolume()).base;
    const copy = (await makeVolume()).base;
    for (const writes of [0, 1, 2]) {
      const area = new CutArea(present, writes);
      await expect(restoreHeader(area, copy)).rejects.toThrow(PowerCut);
      const disk = area.afterCut(random);
      let isHeader = true;
      try {
        parseAnyLuksHeader(disk);
      } catch {
        isHeader = false;
      }
      const expected = Buffer.compare(disk, present) === 0 || Buffer.compare(disk, copy) === 0;
      expect(isHeader).toBe(expected);
      const again = new CutArea(disk);
      await restoreHeader(again, copy);
      expect(Buffer.compare(again.bytes, copy)).toBe(0);
    }
  });
});
