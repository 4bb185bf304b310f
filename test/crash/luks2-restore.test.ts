// SPDX-License-Identifier: Apache-2.0
// The power is cut at every write of a restore of a LUKS version 2 header: some copy of the header
// is whole, and some password goes on opening the image.
import { describe, expect, it } from 'vitest';
import { BlockError, SeededRandom } from '../../src/base/index.js';
import { limitedDerive } from '../../src/crypto/index.js';
import { backupBytes, parseAnyLuksHeader } from '../../src/crypto/luks/index.js';
import {
  limitedArgon2,
  parseBackup2,
  readLuks2Header,
  restoreHeader1,
  restoreHeader2,
  unlockAny2,
} from '../../src/crypto/luks2/index.js';
import { CutArea, PowerCut } from '../helpers/cut-area.js';
import { makeLuks } from '../helpers/luks-images.js';
import { Luks2Maker } from '../helpers/luks2-maker.js';
import type { HeaderWish } from '../helpers/luks2-maker.js';
import { forEachSeed, runs } from '../helpers/seeds.js';

const maker = new Luks2Maker(5);
const other = new Luks2Maker(6);
/** Outcomes of a cut that are tried at each write. */
const OUTCOMES = 3;

async function restore(
  area: CutArea,
  backup: Uint8Array,
  { force = false } = {},
): Promise<void> {
  const place = { area, length: area.bytes.length };
  await restoreHeader2(place, await parseBackup2(backup), { force });
}

const slot = (password: string, room: number) => ({ password, room });

interface Case {
  readonly name: string;
  readonly now: HeaderWish;
  readonly backup: HeaderWish;
}

const CASES: readonly Case[] = [
  {
    name: 'a password was changed, as cryptsetup does it',
    now: { slots: { 0: slot('new', 1) }, rooms: 2, sequence: 9 },
    backup: { slots: { 0: slot('old', 0) }, rooms: 2, sequence: 4 },
  },
  {
    name: 'the only keyslot has another key at its place',
    now: { slots: { 0: slot('new', 0) }, rooms: 2, sequence: 9 },
    backup: { slots: { 0: slot('old', 0) }, rooms: 2, sequence: 4 },
  },
  {
    name: 'two keyslots have changed places, and there is no other room',
    now: { slots: { 0: slot('a', 0), 1: slot('b', 1) }, rooms: 2, sequence: 3 },
    backup: { slots: { 0: slot('a', 1), 1: slot('b', 0) }, rooms: 2, sequence: 3 },
  },
  {
    name: 'some come, some go, some stay, some change; the backup is newer',
    now: { slots: { 0: slot('a', 0), 1: slot('b', 1), 2: slot('c', 2) }, rooms: 4 },
    backup: { slots: { 0: slot('a', 0), 2: slot('d', 2), 5: slot('e', 3) }, rooms: 4, sequence: 7 },
  },
  {
    name: 'no keyslot is left',
    now: { slots: {}, rooms: 2, sequence: 5 },
    backup: { slots: { 0: slot('a', 0), 1: slot('b', 1) }, rooms: 2 },
  },
];

describe('restoring a LUKS version 2 header of the same volume', () => {
  it.each(CASES)('keeps a password that opens: $name', async ({ now, backup }) => {
    const present = await maker.make(now);
    const copy = await maker.make(backup);
    const whole = new CutArea(present);
    await restore(whole, copy);
    expect(Buffer.compare(whole.bytes, copy)).toBe(0);
    const random = new SeededRandom(1);
    const isOpenBefore = Object.keys(now.slots).length > 0;
    for (let writes = 0; writes < whole.lengths.length; writes += 1) {
      const area = new CutArea(present, writes);
      await expect(restore(area, copy)).rejects.toThrow(PowerCut);
      for (let outcome = 0; outcome < OUTCOMES; outcome += 1) {
        const disk = area.afterCut(random);
        const open = await maker.opening(disk);
        if (isOpenBefore) expect(open.length, `after ${writes} writes`).toBeGreaterThan(0);
        const again = new CutArea(disk);
        await restore(again, copy);
        expect(Buffer.compare(again.bytes, copy)).toBe(0);
      }
    }
  });

  it.each([
    ['first', 0],
    ['second', 16_384],
  ])('keeps the copy that counts until another does: the %s is broken', async (_name, start) => {
    const { now, backup } = CASES[1] as Case;
    const present = await maker.make(now);
    const copy = await maker.make(backup);
    present.fill(0x55, start + 4096, start + 4200);
    const whole = new CutArea(present);
    await restore(whole, copy);
    expect(Buffer.compare(whole.bytes, copy)).toBe(0);
    for (let writes = 0; writes < whole.lengths.length; writes += 1) {
      const area = new CutArea(present, writes);
      await expect(restore(area, copy)).rejects.toThrow(PowerCut);
      const disk = area.afterCut(new SeededRandom(writes));
      expect((await maker.opening(disk)).length, `after ${writes} writes`).toBeGreaterThan(0);
    }
  });

  it('writes nothing where nothing differs', async () => {
    const bytes = await maker.make(CASES[0]?.now as HeaderWish);
    const area = new CutArea(bytes);
    await restore(area, bytes);
    expect(area.lengths.length).toBe(0);
  });

  it('is refused where there is no room to keep a key, and done by force', async () => {
    const present = await maker.make({ slots: { 0: slot('new', 0) }, rooms: 1 });
    const copy = await maker.make({ slots: { 0: slot('old', 0) }, rooms: 1 });
    const area = new CutArea(present);
    await expect(restore(area, copy)).rejects.toThrow('has no room for a key');
    expect(area.lengths.length).toBe(0);
    await restore(area, copy, { force: true });
    expect(Buffer.compare(area.bytes, copy)).toBe(0);
  });

  it('makes a copy anew that is broken or older in the backup', async () => {
    const present = await maker.make({ slots: { 0: slot('a', 0) }, rooms: 2, sequence: 9 });
    const copy = await maker.make({ slots: { 1: slot('b', 1) }, rooms: 2, sequence: 4 });
    for (const start of [0, 16_384]) {
      const broken = copy.slice();
      broken.fill(0, start + 4096, start + 8192);
      const area = new CutArea(present);
      await restore(area, broken);
      expect(Buffer.compare(area.bytes, copy)).toBe(0);
    }
    const header = await readLuks2Header(new CutArea(copy), copy.length);
    const limit = { image: 'x', limitSeconds: 60 };
    const tools = { derive: limitedDerive(limit), argon2: limitedArgon2(limit) };
    const opened = await unlockAny2({ area: new CutArea(copy), header }, Buffer.from('b'), tools);
    expect(opened?.slot).toBe(1);
  });
});

/** Keyslots with random passwords in random places; with three passwords some are the same. */
function randomWish(random: SeededRandom, rooms: number): HeaderWish {
  const free = Array.from({ length: rooms }, (_, room) => room);
  const slots: Record<number, { password: string; room: number }> = {};
  for (let count = 1 + random.below(rooms); count > 0; count -= 1) {
    const [room = 0] = free.splice(random.below(free.length), 1);
    slots[random.below(6)] = slot(`p${random.below(3)}`, room);
  }
  return { slots, rooms, sequence: 1 + random.below(4) };
}

it('keeps a password that opens, whatever keyslots there are', async () => {
  await forEachSeed(runs(12, 400), async (seed) => {
    const random = new SeededRandom(seed);
    const rooms = 1 + random.below(4);
    const present = await maker.make(randomWish(random, rooms));
    const copy = await maker.make(randomWish(random, rooms));
    const broken = random.below(4);
    if (broken < 2) present.fill(0x55, broken * 16_384 + 4096, broken * 16_384 + 4200);
    const whole = new CutArea(present);
    const failure = await restore(whole, copy).catch((error: unknown) => error);
    if (failure !== undefined) {
      expect([(failure as BlockError).kind, whole.lengths.length]).toEqual(['no-space', 0]);
      expect(rooms).toBeLessThan(3);
      return;
    }
    expect(Buffer.compare(whole.bytes, copy)).toBe(0);
    for (let writes = 0; writes < whole.lengths.length; writes += 1) {
      const area = new CutArea(present, writes);
      await expect(restore(area, copy)).rejects.toThrow(PowerCut);
      const disk = area.afterCut(random);
      expect((await maker.opening(disk)).length, `after ${writes} writes`).toBeGreaterThan(0);
      const again = new CutArea(disk);
      await restore(again, copy, { force: true });
      expect(Buffer.compare(again.bytes, copy)).toBe(0);
    }
  });
});

describe('restoring a LUKS version 2 header of another volume', () => {
  it('leaves a header only when all of it is there', async () => {
    const present = await maker.make({ slots: { 0: slot('mine', 0) }, rooms: 1, sequence: 8 });
    const copy = await other.make({ slots: { 0: slot('other', 0) }, rooms: 1 });
    const whole = new CutArea(present);
    await restore(whole, copy);
    expect(Buffer.compare(whole.bytes, copy)).toBe(0);
    const random = new SeededRandom(2);
    for (let writes = 0; writes < whole.lengths.length; writes += 1) {
      const area = new CutArea(present, writes);
      await expect(restore(area, copy)).rejects.toThrow(PowerCut);
      for (let outcome = 0; outcome < OUTCOMES; outcome += 1) {
        const disk = area.afterCut(random);
        const open = await opening(disk);
        expect(open === null || open.length === 1, `after ${writes} writes`).toBe(true);
        const again = new CutArea(disk);
        await restore(again, copy, { force: true });
        expect(Buffer.compare(again.bytes, copy)).toBe(0);
      }
    }
  });
});

describe('restoring a header of version 1 where one of version 2 was', () => {
  it('leaves a header only when all of it is there', async () => {
    const present = await maker.make({ slots: { 0: slot('mine', 0) }, rooms: 8 });
    const backup = (await makeLuks(['other'])).bytes;
    const copy = backup.subarray(0, backupBytes(parseAnyLuksHeader(backup)));
    const place = (area: CutArea) => ({ area, length: present.length });
    const whole = new CutArea(present);
    await restoreHeader1(place(whole), copy);
    expect(Buffer.compare(whole.bytes.subarray(0, copy.length), copy)).toBe(0);
    const random = new SeededRandom(3);
    for (let writes = 0; writes < whole.lengths.length; writes += 1) {
      const area = new CutArea(present, writes);
      await expect(restoreHeader1(place(area), copy)).rejects.toThrow(PowerCut);
      for (const disk of [area.afterCut(random), area.afterCutBefore(32_768)]) {
        const isNew = Buffer.compare(disk.subarray(0, copy.length), copy) === 0;
        const open = await opening(disk);
        expect(isNew || open === null || open.length === 1, `after ${writes} writes`).toBe(true);
        if (!isNew) expect(() => parseAnyLuksHeader(disk)).toThrow(BlockError);
      }
    }
  });
});

/** Null: no header can be believed. */
async function opening(disk: Uint8Array): Promise<string[] | null> {
  try {
    return [...(await maker.opening(disk)), ...(await other.opening(disk))];
  } catch (error) {
    if (error instanceof BlockError) return null;
    throw error;
  }
}
