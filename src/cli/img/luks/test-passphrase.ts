// SPDX-License-Identifier: Apache-2.0
// `img luks test-passphrase`: whether a secret opens a keyslot, and which. The key that it opens
// is wiped at once; the payload is not looked at.

import { BlockError } from '../../../base/index.js';
import { passwordOf } from '../../../block/index.js';
import { limitedDerive } from '../../../crypto/index.js';
import { requireSlotNumber, unlockAny, unlockSlot } from '../../../crypto/luks/index.js';
import type { LuksHeader, UnlockedKey } from '../../../crypto/luks/index.js';
import {
  limitedArgon2,
  ownKeyslots,
  unlockAny2,
  unlockSlot2,
} from '../../../crypto/luks2/index.js';
import type { Luks2Header } from '../../../crypto/luks2/index.js';
import { writeJson } from '../../../wire/index.js';
import { CliError } from '../../program.js';
import { withSession } from '../session.js';
import type { Session } from '../session.js';
import { FORCE_SHARE, FORMAT, IMAGE_OPTS, OBJECT, OUTPUT, outputFormat } from '../verb.js';
import { findHeader, readArguments } from './command.js';
import type { FoundHeader, LuksCommand } from './command.js';
import { openHeaderPlace } from './place.js';
import type { HeaderPlace } from './place.js';

const OPTIONS = [
  OBJECT,
  IMAGE_OPTS,
  FORMAT,
  OUTPUT,
  FORCE_SHARE,
  { name: 'secret', long: 'secret', argument: true },
  { name: 'keyslot', long: 'keyslot', argument: true },
] as const;

const WRONG = 2;

export const testCommand: LuksCommand = {
  options: OPTIONS,
  operands: 'FILE',
  async run(args, program) {
    const { image, given } = readArguments(program, args, { specs: OPTIONS, operands: 1 });
    const shape = outputFormat(given.get('output') ?? 'human');
    const slot = slotNumber(given.get('keyslot'));
    return withSession(program, async (session) => {
      const forceShare = given.has('share');
      const place = await openHeaderPlace(session, { image, readOnly: true, forceShare });
      const header = await findHeader(place);
      const password = givenPassword(session, given.get('secret') ?? place.secret);
      const { limitSeconds } = place;
      const opened = await tryPassword(place, header, { password, slot, limitSeconds });
      const isOpen = opened !== null;
      if (shape === 'json') {
        const answer = { unlocked: isOpen, ...(isOpen ? { keyslot: opened } : {}) };
        program.out(`${writeJson(answer, { pretty: true })}\n`);
      } else if (isOpen) program.out(`The secret opens keyslot ${opened}.\n`);
      else if (slot === null) program.out('The secret opens no keyslot.\n');
      else program.out(`The secret does not open keyslot ${slot}.\n`);
      return isOpen ? 0 : WRONG;
    });
  },
};

function slotNumber(text: string | undefined): number | null {
  if (text === undefined) return null;
  if (!/^\d{1,9}$/.test(text)) throw new CliError(`Invalid keyslot '${text}'`);
  return Number(text);
}

function givenPassword({ graph }: Session, id: string | null): Uint8Array {
  if (id !== null) return passwordOf(graph, id);
  throw new CliError(
    'Which secret? --object secret,id=ID,file=PATH makes one, and --secret ID names it, or ' +
      "'key-secret' of the image's options",
  );
}

interface Trial {
  readonly password: Uint8Array;
  /** Null: any of them. */
  readonly slot: number | null;
  /** As of option `key-derivation-limit`. */
  readonly limitSeconds: number | undefined;
}

/** The keyslot that it opens, or null. Wipes the password. */
async function tryPassword(
  place: HeaderPlace,
  found: FoundHeader,
  trial: Trial,
): Promise<number | null> {
  try {
    const unlocked = await (found.version === 1
      ? unlocked1(place, found.header, trial)
      : unlocked2(place, found.header, trial));
    unlocked?.masterKey.fill(0);
    return unlocked?.slot ?? null;
  } finally {
    trial.password.fill(0);
  }
}

async function unlocked1(
  { area, name }: HeaderPlace,
  header: LuksHeader,
  { password, slot, limitSeconds }: Trial,
): Promise<UnlockedKey | null> {
  const derive = limitedDerive({ image: name, limitSeconds });
  if (slot === null) return unlockAny({ area, header }, password, derive);
  requireSlotNumber(slot);
  const keyslot = header.keyslots[slot];
  if (keyslot?.active !== true) throw notActive(slot, name);
  const masterKey = await unlockSlot({ area, header, keyslot }, password, derive);
  return masterKey === null ? null : { slot, masterKey };
}

async function unlocked2(
  { area, name }: HeaderPlace,
  header: Luks2Header,
  { password, slot, limitSeconds }: Trial,
): Promise<UnlockedKey | null> {
  const limit = { image: name, limitSeconds };
  const tools = { derive: limitedDerive(limit), argon2: limitedArgon2(limit) };
  if (slot === null) return unlockAny2({ area, header }, password, tools);
  const keyslot = ownKeyslots(header).find(({ number }) => number === slot);
  if (keyslot === undefined) throw notActive(slot, name);
  const masterKey = await unlockSlot2({ area, header, keyslot }, password, tools);
  return masterKey === null ? null : { slot, masterKey };
}

function notActive(slot: number, name: string): BlockError {
  return new BlockError('invalid-option', `Keyslot ${slot} of '${name}' is not active`);
}
