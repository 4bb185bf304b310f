// SPDX-License-Identifier: Apache-2.0
// Long histories of one LUKS header: keyslots are added, replaced and erased by all rules of amend,
// and the power goes now and then, in the middle of a change, after which others follow on what is
// left. A model says which password each keyslot may have then; some password always opens.
import { describe, expect, it } from 'vitest';

import { BlockError, SeededRandom } from '../../src/base/index.js';
import { deriveKey } from '../../src/crypto/index.js';
import { amendKeyslots, parseAnyLuksHeader } from '../../src/crypto/luks/index.js';
import type { AmendKeyslots } from '../../src/crypto/luks/index.js';
import { CutArea, PowerCut } from '../helpers/cut-area.js';
import { makeLuks, passwordBytes, slotPasswords } from '../helpers/luks-images.js';
import { forEachSeed, runs } from '../helpers/seeds.js';

const WORDS = ['a', 'b', 'c', 'd'];
const NONE = 'erased';
/** Writes of the longest change: two erasures and two keyslots. */
const MOST_WRITES = 90;

/** One change, and what it leaves of each keyslot when it is not cut. */
interface Change {
  readonly wish: AmendKeyslots;
  readonly force: boolean;
  readonly after: readonly string[];
  /** The password that comes, or null, and where. */
  readonly word: string | null;
  readonly target: number | null;
}

class History {
  readonly #random: SeededRandom;
  #disk: Uint8Array;
  /** Of each keyslot its password. */
  #slots: readonly string[];
  cuts = 0;

  constructor(seed: number, disk: Uint8Array, slots: readonly string[]) {
    this.#random = new SeededRandom(seed);
    this.#disk = disk;
    this.#slots = slots;
  }

  async step(): Promise<void> {
    const change = this.#change();
    const writes = this.#pick([Infinity, this.#random.below(6), this.#random.below(MOST_WRITES)]);
    const area = new CutArea(this.#disk, writes);
    const header = parseAnyLuksHeader(this.#disk);
    const fill = (buffer: Uint8Array): void =>
      buffer.length > 1024 ? void buffer.fill(this.#random.below(256)) : this.#random.fill(buffer);
    const iterations = (): Promise<number> => Promise.resolve(1);
    const ways = { tools: { derive: deriveKey, fill, iterations }, force: change.force };
    let isOver = true;
    try {
      await amendKeyslots({ area, header }, change.wish, ways);
    } catch (error) {
      if (error instanceof BlockError) throw error;
      expect(error).toBeInstanceOf(PowerCut);
      isOver = false;
    }
    this.#disk = isOver ? area.bytes : area.afterCut(this.#random);
    await this.#compare(change, isOver);
  }

  async #compare({ after, word, target }: Change, isOver: boolean): Promise<void> {
    const now = await slotPasswords(this.#disk, parseAnyLuksHeader(this.#disk), WORDS);
    const before = this.#slots;
    this.#slots = now;
    if (isOver) return expect(now).toEqual(after);
    this.cuts += 1;
    expect(now.some((each) => each !== NONE)).toBe(true);
    for (const [slot, is] of now.entries()) {
      const [was = NONE, becomes = NONE] = [before[slot], after[slot]];
      if (slot !== target && was === becomes && was !== NONE) expect(is).toBe(was);
      // A free one may keep the new key meanwhile.
      else expect([was, becomes, NONE, was === NONE ? word : NONE]).toContain(is);
    }
  }

  /** One that is not refused, and leaves a key. */
  #change(): Change {
    const active = this.#numbers((each) => each !== NONE);
    const word = this.#pick(WORDS);
    const slot = this.#random.below(8);
    const isFree = this.#slots[slot] === NONE;
    const base = { openingPassword: source(this.#slots[this.#pick(active)] ?? '') };
    if (active.length < 2 || this.#random.chance(0.55)) {
      const wish: AmendKeyslots = {
        ...base, state: 'active', newPassword: source(word), keyslot: slot,
      };
      const after = this.#slots.with(slot, word);
      return { wish, force: !isFree, after, word, target: slot };
    }
    if (this.#random.chance(0.5)) {
      const others = this.#slots.map((each) => (each === word ? NONE : each));
      const isMeant = others.some((each) => each !== NONE) && this.#slots.includes(word);
      const wish: AmendKeyslots = { ...base, state: 'inactive', oldPassword: source(word) };
      if (isMeant) return { wish, force: false, after: others, word: null, target: null };
    }
    const wish: AmendKeyslots = { ...base, state: 'inactive', keyslot: slot };
    const after = this.#slots.with(slot, NONE);
    return { wish, force: isFree, after, word: null, target: slot };
  }

  #numbers(test: (word: string) => boolean): readonly number[] {
    return this.#slots.flatMap((each, slot) => (test(each) ? [slot] : []));
  }

  #pick<T>(list: readonly T[]): T {
    return list[this.#random.below(list.length)] as T;
  }
}

function source(word: string): () => Uint8Array {
  return () => passwordBytes(word);
}

describe('keyslots through many changes and power cuts', () => {
  it('have the passwords that they may have', async () => {
    const first = await makeLuks(['a', 'b'], { payload: 0 });
    const none = Array<string>(6).fill(NONE);
    await forEachSeed(runs(2, 40), async (seed) => {
      const history = new History(seed, first.bytes.slice(), ['a', 'b', ...none]);
      for (let step = 0; step < runs(15, 60); step += 1) await history.step();
      expect(history.cuts).toBeGreaterThan(0);
    });
  });
});
