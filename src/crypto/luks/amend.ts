// SPDX-License-Identifier: Apache-2.0
// What `amend` does to keyslots: which are meant, and which wishes are refused.
//
// All is looked at, and every password tried, before anything is written. Refusals are worded as
// scripts know them. Source of the rules: LUKSAmend of the QMP schema.

import { BlockError } from '../../base/index.js';
import type { DeriveKey } from '../derivation/index.js';
import type { LuksHeader } from './header.js';
import { unlockAny, unlockSlot } from './keyslots.js';
import type { LuksArea } from './keyslots.js';
import { KeyslotEditor, requireSlotNumber } from './slot-changes.js';
import type { LuksTools } from './format.js';

export interface AmendKeyslots {
  readonly state: 'active' | 'inactive';
  readonly keyslot?: number | undefined;
  /** Passwords; the caller wipes them. */
  readonly newPassword?: Uint8Array | undefined;
  readonly oldPassword?: Uint8Array | undefined;
  /** Takes out the master key, where a keyslot is added. */
  readonly password?: Uint8Array | undefined;
  readonly iterTimeMs?: number | undefined;
}

export interface AmendTools extends LuksTools {
  /** Iterations of a keyslot that may take so many milliseconds; null: the usual time. */
  iterations(ms: number | null): Promise<number>;
}

interface Place {
  readonly area: LuksArea;
  readonly header: LuksHeader;
}

/** Gives the header as it is then. `force`: what may lose the data is done. */
export async function amendKeyslots(
  place: Place,
  wish: AmendKeyslots,
  { tools, force }: { readonly tools: AmendTools; readonly force: boolean },
): Promise<LuksHeader> {
  const editor = new KeyslotEditor(place.area, place.header, tools);
  if (wish.keyslot !== undefined) requireSlotNumber(wish.keyslot);
  if (wish.state === 'active') await add(place, wish, { editor, tools, force });
  else {
    const slots = await slotsToErase(place, wish, { tools, force });
    for (const slot of slots) await editor.erase(slot);
  }
  return editor.header;
}

async function add(
  place: Place,
  wish: AmendKeyslots,
  context: {
    readonly editor: KeyslotEditor;
    readonly tools: AmendTools;
    readonly force: boolean;
  },
): Promise<void> {
  const { editor, tools, force } = context;
  const { newPassword: password, keyslot, iterTimeMs } = wish;
  if (password === undefined) throw refusal("'new-secret' is required to activate a keyslot");
  if (wish.oldPassword !== undefined) {
    throw refusal("'old-secret' must not be given when activating keyslots");
  }
  if (keyslot !== undefined && place.header.keyslots[keyslot]?.active === true && !force) {
    throw refusal(`Refusing to overwrite active keyslot ${keyslot} - please erase it first`);
  }
  const slot = keyslot ?? editor.freeSlot;
  if (slot === null) {
    throw refusal("Can't add a keyslot - all keyslots are in use");
  }
  const unlocked = await unlockAny(place, wish.password ?? new Uint8Array(0), tools.derive);
  if (unlocked === null) {
    throw new BlockError('permission', 'Invalid password, cannot unlock any keyslot');
  }
  const { masterKey } = unlocked;
  try {
    const iterations = await tools.iterations(iterTimeMs ?? null);
    await editor.add(slot, { masterKey, password, iterations });
  } finally {
    masterKey.fill(0);
  }
}

async function slotsToErase(
  place: Place,
  wish: AmendKeyslots,
  { tools, force }: { readonly tools: AmendTools; readonly force: boolean },
): Promise<readonly number[]> {
  const { keyslot, oldPassword } = wish;
  if (wish.newPassword !== undefined) {
    throw refusal("'new-secret' must not be given when erasing keyslots");
  }
  if (wish.iterTimeMs !== undefined) {
    throw refusal("'iter-time' must not be given when erasing keyslots");
  }
  const active = place.header.keyslots.flatMap((slot, index) => (slot.active ? [index] : []));
  if (keyslot !== undefined) {
    if (oldPassword !== undefined && !(await opens(place, keyslot, oldPassword, tools.derive))) {
      throw refusal(
        `Given keyslot ${keyslot} doesn't contain the given old password for erase operation`,
      );
    }
    if (!active.includes(keyslot) && !force) {
      throw refusal(`Given keyslot ${keyslot} is already erased (inactive) `);
    }
    if (active.length === 1 && !force) {
      throw refusal(
        `Attempt to erase the only active keyslot ${keyslot} which will erase all the data in ` +
          'the image irreversibly - refusing operation',
      );
    }
    return [keyslot];
  }
  if (oldPassword === undefined) {
    throw refusal(
      'To erase keyslot(s), either explicit keyslot index or the password currently contained ' +
        'in them must be given',
    );
  }
  return matching(place, active, { oldPassword, tools, force });
}

async function matching(
  place: Place,
  active: readonly number[],
  context: {
    readonly oldPassword: Uint8Array;
    readonly tools: AmendTools;
    readonly force: boolean;
  },
): Promise<readonly number[]> {
  const found: number[] = [];
  for (const slot of active) {
    if (await opens(place, slot, context.oldPassword, context.tools.derive)) found.push(slot);
  }
  if (found.length === 0) {
    throw refusal('No keyslots match given (old) password for erase operation');
  }
  if (found.length === active.length && !context.force) {
    throw refusal(
      'All the active keyslots match the (old) password that was given and erasing them will ' +
        'erase all the data in the image irreversibly - refusing operation',
    );
  }
  return found;
}

async function opens(
  place: Place,
  slot: number,
  password: Uint8Array,
  derive: DeriveKey,
): Promise<boolean> {
  const keyslot = place.header.keyslots[slot];
  if (keyslot?.active !== true) return false;
  const masterKey = await unlockSlot({ ...place, keyslot }, password, derive);
  masterKey?.fill(0);
  return masterKey !== null;
}

function refusal(text: string): BlockError {
  return new BlockError('invalid-option', text);
}
