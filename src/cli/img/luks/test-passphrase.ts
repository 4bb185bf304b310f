// SPDX-License-Identifier: Apache-2.0
// `img luks test-passphrase`: whether a secret opens a keyslot, and which. The key that it opens
// is wiped at once; the payload is not looked at.

import { BlockError } from '../../../base/index.js';
import { limitedDerive, requireText } from '../../../crypto/index.js';
import { requireSlotNumber, unlockAny, unlockSlot } from '../../../crypto/luks/index.js';
import type { LuksHeader, UnlockedKey } from '../../../crypto/luks/index.js';
import { writeJson } from '../../../wire/index.js';
import { CliError } from '../../program.js';
import { withSession } from '../session.js';
import type { Session } from '../session.js';
import { FORCE_SHARE, FORMAT, IMAGE_OPTS, OBJECT, OUTPUT, outputFormat } from '../verb.js';
import { readArguments, readHeader } from './command.js';
import type { LuksCommand } from './command.js';
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
      const header = await readHeader(place);
      const password = passwordOf(session, given.get('secret') ?? place.secret);
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
  const slot = Number(text);
  requireSlotNumber(slot);
  return slot;
}

function passwordOf({ graph }: Session, id: string | null): Uint8Array {
  if (id === null) throw new CliError("Which secret? --secret ID, or 'key-secret' of --image-opts");
  const password = graph.secret(id);
  requireText(id, password);
  return password;
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
  { area, name }: HeaderPlace,
  header: LuksHeader,
  { password, slot, limitSeconds }: Trial,
): Promise<number | null> {
  const derive = limitedDerive({ image: name, limitSeconds });
  try {
    let unlocked: UnlockedKey | null = null;
    if (slot === null) unlocked = await unlockAny({ area, header }, password, derive);
    else {
      const keyslot = header.keyslots[slot];
      if (keyslot?.active !== true) {
        throw new BlockError('invalid-option', `Keyslot ${slot} of '${name}' is not active`);
      }
      const masterKey = await unlockSlot({ area, header, keyslot }, password, derive);
      unlocked = masterKey === null ? null : { slot, masterKey };
    }
    unlocked?.masterKey.fill(0);
    return unlocked?.slot ?? null;
  } finally {
    password.fill(0);
  }
}
