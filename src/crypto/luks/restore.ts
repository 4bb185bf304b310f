// SPDX-License-Identifier: Apache-2.0
// A LUKS version 1 header area put back from a backup, so that a power cut takes no key away.
//
// Where the image's header is of the same master key (the same volume, older or newer keyslots),
// keyslots are exchanged one by one: a keyslot becomes invalid by one write of four bytes before
// its salt and key material change, valid by one when they are on disk, and at every moment some
// keyslot is valid, old or new. The only valid keyslot is first put into a free one, for key
// material does not depend on its place. Keyslots that go go last.
//
// Otherwise the old header cannot live beside the new: its magic goes first, the first sector of
// the new one comes last. A power cut in between leaves no header, and the backup to begin again.

import { assert } from '../../base/index.js';
import { SECTOR_BYTES } from '../sector-cipher.js';
import { backupBytes, parseAnyLuksHeader } from './backup.js';
import { hasLuksMagic, materialBytes } from './header.js';
import type { LuksHeader } from './header.js';
import type { LuksArea } from './keyslots.js';
import { HEADER_BYTES, KEYSLOT, KEYSLOT_COUNT, KEYSLOTS_AT, SlotState } from './layout.js';

/** Version, cipher, digests and payload: all in front of the UUID. */
const IDENTITY_BYTES = 168;
const STATE_BYTES = 4;

/** Durable when it resolves. `backup` is whole; what is there now is read from the area. */
export async function restoreHeader(area: LuksArea, backup: Uint8Array): Promise<void> {
  const wanted = parseAnyLuksHeader(backup);
  // The backup ends with a whole page, and the payload may begin within it.
  const end = Math.min(backupBytes(wanted), wanted.payloadOffset || Infinity);
  const bytes = backup.subarray(0, end);
  const present = await area.read(0, bytes.length);
  if (isSameVolume(present, bytes)) await new Exchange(area, present, bytes).run();
  else await replace(area, present, bytes);
}

/** Whether keyslots of the one are of use in the other. */
function isSameVolume(present: Uint8Array, wanted: Uint8Array): boolean {
  const identity = present.subarray(0, IDENTITY_BYTES);
  if (Buffer.compare(identity, wanted.subarray(0, IDENTITY_BYTES)) !== 0) return false;
  let old: LuksHeader;
  try {
    old = parseAnyLuksHeader(present);
  } catch {
    return false;
  }
  const { keyslots } = parseAnyLuksHeader(wanted);
  return old.keyslots.every(
    ({ materialOffset }, slot) => materialOffset === keyslots[slot]?.materialOffset,
  );
}

async function replace(
  area: LuksArea,
  present: Uint8Array,
  wanted: Uint8Array,
): Promise<void> {
  if (hasLuksMagic(present)) {
    await area.write(0, new Uint8Array(SECTOR_BYTES));
    await area.flush();
  }
  await area.write(SECTOR_BYTES, wanted.subarray(SECTOR_BYTES));
  await area.flush();
  await area.write(0, wanted.subarray(0, SECTOR_BYTES));
  await area.flush();
}

/** One keyslot's part of a header area. */
interface SlotBytes {
  readonly fields: Uint8Array;
  readonly material: Uint8Array;
}

class Exchange {
  readonly #area: LuksArea;
  /** What is on disk. */
  readonly #now: Uint8Array;
  readonly #wanted: Uint8Array;
  readonly #header: LuksHeader;

  constructor(area: LuksArea, now: Uint8Array, wanted: Uint8Array) {
    this.#area = area;
    this.#now = now;
    this.#wanted = wanted;
    this.#header = parseAnyLuksHeader(wanted);
  }

  async run(): Promise<void> {
    const slots = Array.from({ length: KEYSLOT_COUNT }, (_, slot) => slot);
    const comes = (slot: number): boolean => isActive(this.#wanted, slot);
    const isThere = (slot: number): boolean => isActive(this.#now, slot);
    const isChanged = (slot: number): boolean => !this.#isPlaced(slot);
    for (const slot of slots.filter((each) => comes(each) && !isThere(each))) {
      await this.#put(slot, this.#slotBytes(slot));
    }
    for (const slot of slots.filter((each) => comes(each) && isChanged(each))) {
      await this.#keepOneBeside(slot, slots);
      await this.#put(slot, this.#slotBytes(slot));
    }
    for (const slot of slots.filter((each) => !comes(each) && isChanged(each))) {
      await this.#put(slot, this.#slotBytes(slot));
    }
    await this.#putRest();
  }

  /** Where this keyslot alone is active, a free one gets its new key first. */
  async #keepOneBeside(slot: number, slots: readonly number[]): Promise<void> {
    if (slots.some((each) => each !== slot && isActive(this.#now, each))) return;
    const spare = slots.find((each) => each !== slot);
    assert(spare !== undefined, 'there is more than one keyslot');
    const { fields, material } = this.#slotBytes(slot);
    const own = this.#wanted.subarray(fieldsAt(spare), fieldsAt(spare) + KEYSLOT.size);
    const moved = Uint8Array.from(fields);
    moved.set(own.subarray(MATERIAL_FIELD_AT), MATERIAL_FIELD_AT);
    await this.#put(spare, { fields: moved, material });
  }

  #isPlaced(slot: number): boolean {
    const { fields, material } = this.#slotBytes(slot);
    const at = this.#materialAt(slot);
    const isAt = (offset: number, bytes: Uint8Array): boolean =>
      Buffer.compare(this.#now.subarray(offset, offset + bytes.length), bytes) === 0;
    return isAt(fieldsAt(slot), fields) && isAt(at, material);
  }

  async #put(slot: number, { fields, material }: SlotBytes): Promise<void> {
    const at = fieldsAt(slot);
    if (isActive(this.#now, slot)) {
      await this.#write(at, stateBytes(SlotState.inactive));
      await this.#area.flush();
    }
    await this.#write(this.#materialAt(slot), material);
    await this.#write(at + STATE_BYTES, fields.subarray(STATE_BYTES));
    await this.#area.flush();
    await this.#write(at, fields.subarray(0, STATE_BYTES));
    await this.#area.flush();
  }

  /** The UUID, in one sector, and what lies between the areas. */
  async #putRest(): Promise<void> {
    const length = materialBytes(this.#header.spec);
    const uuid = { start: IDENTITY_BYTES, end: KEYSLOTS_AT };
    const starts = this.#header.keyslots
      .map(({ materialOffset }) => materialOffset)
      .toSorted((left, right) => left - right);
    const gaps = starts.map((start, index) => ({
      start: index === 0 ? HEADER_BYTES : (starts[index - 1] ?? 0) + length,
      end: start,
    }));
    gaps.push({ start: (starts.at(-1) ?? 0) + length, end: this.#wanted.length });
    for (const { start, end } of [uuid, ...gaps]) {
      const bytes = this.#wanted.subarray(start, end);
      if (Buffer.compare(this.#now.subarray(start, end), bytes) === 0) continue;
      await this.#write(start, bytes);
    }
    await this.#area.flush();
  }

  #slotBytes(slot: number): SlotBytes {
    const at = fieldsAt(slot);
    const material = this.#materialAt(slot);
    const end = material + materialBytes(this.#header.spec);
    return {
      fields: this.#wanted.subarray(at, at + KEYSLOT.size),
      material: this.#wanted.subarray(material, end),
    };
  }

  #materialAt(slot: number): number {
    const keyslot = this.#header.keyslots[slot];
    assert(keyslot !== undefined, `there is no keyslot ${slot}`);
    return keyslot.materialOffset;
  }

  async #write(offset: number, bytes: Uint8Array): Promise<void> {
    await this.#area.write(offset, bytes);
    this.#now.set(bytes, offset);
  }
}

/** Where in the fields of a keyslot the place of its key material begins. */
const MATERIAL_FIELD_AT = 40;

function fieldsAt(slot: number): number {
  return KEYSLOTS_AT + slot * KEYSLOT.size;
}

function isActive(bytes: Uint8Array, slot: number): boolean {
  const view = new DataView(bytes.buffer, bytes.byteOffset + fieldsAt(slot), STATE_BYTES);
  return view.getUint32(0) === SlotState.active;
}

function stateBytes(state: number): Uint8Array {
  const bytes = new Uint8Array(STATE_BYTES);
  new DataView(bytes.buffer).setUint32(0, state);
  return bytes;
}
