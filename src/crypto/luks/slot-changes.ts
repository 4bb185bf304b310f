// SPDX-License-Identifier: Apache-2.0
// Keyslots of a header that is in use: one more, or one less.
//
// A power cut at any write leaves every keyslot that was valid either valid or inactive, and never
// an image without its last key. So a keyslot becomes valid by one write of four bytes, when its
// salt and key material are on disk; and invalid by one write within the sector of those four
// bytes, which takes the salt along: without that, key material says nothing while it is still
// there. (The 592 bytes of a header are two sectors, and keyslot 6 lies in both.) An active
// keyslot is overwritten while the key is kept in another: one that is known to hold it, or else
// a free one, for who can say that the other active ones do.

import { assert, BlockError } from '../../base/index.js';
import { SECTOR_BYTES } from '../sector-cipher.js';
import { encodeLuksHeader, materialBytes } from './header.js';
import type { Keyslot, LuksHeader } from './header.js';
import { makeMaterial } from './keyslots.js';
import type { LuksArea } from './keyslots.js';
import type { LuksTools } from './format.js';
import { KEYSLOT, KEYSLOT_COUNT, KEYSLOTS_AT, SALT_BYTES } from './layout.js';

/** So often erased key material is overwritten, as disks of the time of the format asked for. */
const OVERWRITES = 40;
const STATE_BYTES = 4;

export interface NewKeyslot {
  readonly masterKey: Uint8Array;
  readonly password: Uint8Array;
  readonly iterations: number;
  /** The keyslot that the master key was taken out of. */
  readonly provenSlot?: number;
}

interface PreparedSlot {
  readonly slot: number;
  readonly keyslot: Keyslot;
  readonly material: Uint8Array;
}

/** A header and the area that it lies in; `header` is what is on disk. */
export class KeyslotEditor {
  readonly #area: LuksArea;
  readonly #tools: LuksTools;
  #header: LuksHeader;

  constructor(area: LuksArea, header: LuksHeader, tools: LuksTools) {
    this.#area = area;
    this.#header = header;
    this.#tools = tools;
  }

  get header(): LuksHeader {
    return this.#header;
  }

  /** The first inactive keyslot, or null. */
  get freeSlot(): number | null {
    const slot = this.#header.keyslots.findIndex(({ active }) => !active);
    return slot < 0 ? null : slot;
  }

  /**
   * Durable when it resolves; an active keyslot is replaced. Keys are derived before anything is
   * written, so that a derivation can be cancelled.
   */
  async add(slot: number, wish: NewKeyslot): Promise<void> {
    const { active } = this.#keyslot(slot);
    const { provenSlot = slot } = wish;
    const made = await this.#prepare(slot, wish);
    const spare = active && provenSlot === slot ? this.freeSlot : null;
    if (spare !== null) await this.#activate(this.#movedTo(spare, made));
    if (active) await this.erase(slot);
    await this.#activate(made);
    if (spare !== null) await this.erase(spare);
  }

  /** Durable when it resolves, its key material overwritten. */
  async erase(slot: number): Promise<void> {
    const { active, materialOffset } = this.#keyslot(slot);
    const empty = { active: false, iterations: 0, salt: new Uint8Array(SALT_BYTES) };
    const keyslot: Keyslot = { ...empty, materialOffset };
    const inSector = SECTOR_BYTES - (placeOf(slot) % SECTOR_BYTES);
    if (active && inSector < KEYSLOT.size) await this.#store(slot, keyslot, inSector);
    await this.#store(slot, keyslot, KEYSLOT.size);
    const noise = new Uint8Array(materialBytes(this.#header.spec));
    for (let pass = 0; pass < OVERWRITES; pass += 1) {
      this.#tools.fill(noise);
      await this.#area.write(materialOffset, noise);
      await this.#area.flush();
    }
  }

  async #prepare(
    slot: number,
    { masterKey, password, iterations }: NewKeyslot,
  ): Promise<PreparedSlot> {
    const { materialOffset } = this.#keyslot(slot);
    const salt = new Uint8Array(SALT_BYTES);
    this.#tools.fill(salt);
    const keyslot: Keyslot = { active: false, iterations, salt, materialOffset };
    const place = { header: this.#header, keyslot };
    const material = await makeMaterial(place, { masterKey, password }, this.#tools);
    return { slot, keyslot, material };
  }

  /** Key material does not depend on its place. */
  #movedTo(slot: number, { keyslot, material }: PreparedSlot): PreparedSlot {
    const { materialOffset } = this.#keyslot(slot);
    return { slot, keyslot: { ...keyslot, materialOffset }, material };
  }

  async #activate({ slot, keyslot, material }: PreparedSlot): Promise<void> {
    await this.#area.write(keyslot.materialOffset, material);
    await this.#store(slot, keyslot, KEYSLOT.size);
    await this.#store(slot, { ...keyslot, active: true }, STATE_BYTES);
  }

  /** Writes the first `length` bytes of the keyslot, and flushes. */
  async #store(slot: number, keyslot: Keyslot, length: number): Promise<void> {
    const keyslots = this.#header.keyslots.with(slot, keyslot);
    const header = { ...this.#header, keyslots };
    const at = placeOf(slot);
    await this.#area.write(at, encodeLuksHeader(header).subarray(at, at + length));
    await this.#area.flush();
    this.#header = header;
  }

  #keyslot(slot: number): Keyslot {
    const keyslot = this.#header.keyslots[slot];
    assert(keyslot !== undefined, `there is no keyslot ${slot}`);
    return keyslot;
  }
}

/** Where in the header its fields begin. */
function placeOf(slot: number): number {
  return KEYSLOTS_AT + slot * KEYSLOT.size;
}

/** Throws kind `invalid-option` for a number that no keyslot has, `state` what it is to be. */
export function requireSlotNumber(slot: number, state: 'active' | 'inactive' = 'active'): void {
  if (isSlotNumber(slot)) return;
  // As scripts know it: 32 bits, with a sign where it is erased, unless those would be a valid one.
  const bits = state === 'active' ? slot >>> 0 : slot | 0;
  throw new BlockError(
    'invalid-option',
    `Invalid keyslot ${isSlotNumber(bits) ? slot : bits} specified, ` +
      `must be between 0 and ${KEYSLOT_COUNT - 1}`,
  );
}

function isSlotNumber(slot: number): boolean {
  return Number.isInteger(slot) && slot >= 0 && slot < KEYSLOT_COUNT;
}
