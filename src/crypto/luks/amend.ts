// SPDX-License-Identifier: Apache-2.0
// What `amend` does to keyslots: which are meant, and which wishes are refused.
//
// All is looked at, and every password tried, before anything is written. Refusals are worded as
// scripts know them. Source of the rules: LUKSAmend of the QMP schema.

import { BlockError } from '../../base/index.js';
import type { DeriveKey } from '../derivation/index.js';
import type { LuksHeader } from './header.js';
import { unlockAny, unlockSlot } from './keyslots.js';
import type { LuksArea, UnlockedKey } from './keyslots.js';
import { KeyslotEditor, requireSlotNumber } from './slot-changes.js';
import type { LuksTools } from './format.js';

/** A copy of a password, wiped by who asked for it. Throws where there is no such secret. */
export type PasswordSource = () => Uint8Array;

export interface AmendKeyslots {
  readonly state: 'active' | 'inactive';
  readonly keyslot?: number | undefined;
  readonly newPassword?: PasswordSource | undefined;
  readonly oldPassword?: PasswordSource | undefined;
  /** Takes out the master key, where a keyslot is added; else that of opening does. */
  readonly password?: PasswordSource | undefined;
  readonly openingPassword: PasswordSource;
  readonly iterTimeMs?: number | undefined;
}

export interface AmendTools extends LuksTools {
  /** Iterations of a keyslot that may take so many milliseconds; null: the usual time. */
  iterations(header: LuksHeader, ms: number | null): Promise<number>;
}

export interface AmendWays {
  readonly tools: AmendTools;
  /** What may lose the data is done. */
  readonly force: boolean;
  /** Throws kind `cancelled`; called where nothing is half done. */
  readonly checkpoint?: () => void;
  /** Keyslots that are done, of how many; not called for the last one. */
  readonly progress?: (done: number, total: number) => void;
}

interface Place {
  readonly area: LuksArea;
  readonly header: LuksHeader;
}

/** Gives the header as it is then. */
export async function amendKeyslots(
  place: Place,
  wish: AmendKeyslots,
  ways: AmendWays,
): Promise<LuksHeader> {
  const editor = new KeyslotEditor(place.area, place.header, ways.tools);
  if (wish.state === 'active') {
    await add(place, wish, { ...ways, editor });
    return editor.header;
  }
  const slots = await slotsToErase(place, wish, ways);
  for (const [done, slot] of slots.entries()) {
    ways.checkpoint?.();
    await editor.erase(slot);
    if (done + 1 < slots.length) ways.progress?.(done + 1, slots.length);
  }
  return editor.header;
}

async function add(
  place: Place,
  wish: AmendKeyslots,
  context: AmendWays & { readonly editor: KeyslotEditor },
): Promise<void> {
  const { editor, tools, force, checkpoint } = context;
  const { newPassword, keyslot, iterTimeMs } = wish;
  if (newPassword === undefined) throw refusal("'new-secret' is required to activate a keyslot");
  if (wish.oldPassword !== undefined) {
    throw refusal("'old-secret' must not be given when activating keyslots");
  }
  if (keyslot !== undefined) requireSlotNumber(keyslot);
  if (keyslot !== undefined && place.header.keyslots[keyslot]?.active === true && !force) {
    throw refusal(`Refusing to overwrite active keyslot ${keyslot} - please erase it first`);
  }
  const slot = keyslot ?? editor.freeSlot;
  if (slot === null) {
    throw refusal("Can't add a keyslot - all keyslots are in use");
  }
  const unlocked = await unlock(place, wish.password ?? wish.openingPassword, context);
  const { masterKey, slot: provenSlot } = unlocked;
  try {
    const password = newPassword();
    try {
      const iterations = await tools.iterations(place.header, iterTimeMs ?? null);
      checkpoint?.();
      await editor.add(slot, { masterKey, password, iterations, provenSlot });
    } finally {
      password.fill(0);
    }
  } finally {
    masterKey.fill(0);
  }
}

async function unlock(
  place: Place,
  source: PasswordSource,
  ways: AmendWays,
): Promise<UnlockedKey> {
  const password = source();
  try {
    const unlocked = await unlockAny(place, password, interruptible(ways));
    if (unlocked !== null) return unlocked;
  } finally {
    password.fill(0);
  }
  throw new BlockError('permission', 'Invalid password, cannot unlock any keyslot');
}

/** Derivations of which none begins once the change is cancelled. */
function interruptible({ tools, checkpoint }: AmendWays): DeriveKey {
  return (wish) => {
    checkpoint?.();
    return tools.derive(wish);
  };
}

async function slotsToErase(
  place: Place,
  wish: AmendKeyslots,
  ways: AmendWays,
): Promise<readonly number[]> {
  const { keyslot, oldPassword } = wish;
  if (wish.newPassword !== undefined) {
    throw refusal("'new-secret' must not be given when erasing keyslots");
  }
  if (wish.iterTimeMs !== undefined) {
    throw refusal("'iter-time' must not be given when erasing keyslots");
  }
  if (wish.password !== undefined) {
    throw refusal("'secret' must not be given when erasing keyslots");
  }
  const password = oldPassword?.();
  try {
    if (keyslot !== undefined) requireSlotNumber(keyslot, 'inactive');
    const active = place.header.keyslots.flatMap((slot, index) => (slot.active ? [index] : []));
    if (keyslot !== undefined) {
      await requireErasable(place, { keyslot, password, active }, ways);
      return [keyslot];
    }
    if (password !== undefined) return await matching(place, { password, active }, ways);
  } finally {
    password?.fill(0);
  }
  throw refusal(
    'To erase keyslot(s), either explicit keyslot index or the password currently contained ' +
      'in them must be given',
  );
}

async function requireErasable(
  place: Place,
  { keyslot, password, active }: {
    readonly keyslot: number;
    readonly password: Uint8Array | undefined;
    readonly active: readonly number[];
  },
  ways: AmendWays,
): Promise<void> {
  if (password !== undefined && !(await opens({ ...place, slot: keyslot }, password, ways))) {
    throw refusal(
      `Given keyslot ${keyslot} doesn't contain the given old password for erase operation`,
    );
  }
  if (!active.includes(keyslot) && !ways.force) {
    throw refusal(`Given keyslot ${keyslot} is already erased (inactive) `);
  }
  if (active.length === 1 && !ways.force) {
    throw refusal(
      `Attempt to erase the only active keyslot ${keyslot} which will erase all the data in ` +
        'the image irreversibly - refusing operation',
    );
  }
}

async function matching(
  place: Place,
  { password, active }: { readonly password: Uint8Array; readonly active: readonly number[] },
  ways: AmendWays,
): Promise<readonly number[]> {
  const found: number[] = [];
  for (const slot of active) {
    if (await opens({ ...place, slot }, password, ways)) found.push(slot);
  }
  if (found.length === 0) {
    throw refusal('No keyslots match given (old) password for erase operation');
  }
  if (found.length === active.length && !ways.force) {
    throw refusal(
      'All the active keyslots match the (old) password that was given and erasing them will ' +
        'erase all the data in the image irreversibly - refusing operation',
    );
  }
  return found;
}

async function opens(
  place: Place & { readonly slot: number },
  password: Uint8Array,
  ways: AmendWays,
): Promise<boolean> {
  const keyslot = place.header.keyslots[place.slot];
  if (keyslot?.active !== true) return false;
  const masterKey = await unlockSlot({ ...place, keyslot }, password, interruptible(ways));
  masterKey?.fill(0);
  return masterKey !== null;
}

function refusal(text: string): BlockError {
  return new BlockError('invalid-option', text);
}
