// SPDX-License-Identifier: Apache-2.0
// A LUKS version 2 header area as one piece, as `cryptsetup luksHeaderBackup` keeps it: both
// copies and the whole area of keyslots, bytes as they are.
//
// A copy that is broken or older in the backup is made anew of the other, so that what is restored
// is whole.

import { BlockError } from '../../base/index.js';
import type { LuksArea } from '../luks/index.js';
import { hasLuksMagic, readSteadily } from '../luks/index.js';
import { copyPair } from './encode.js';
import {
  headerAreaBytes2,
  headerOf,
  isBroken,
  isLuks2,
  newerOf,
  readCopies,
} from './header.js';
import type { Luks2Copies, Luks2Copy, Luks2Header } from './header.js';

export interface Luks2Backup {
  readonly header: Luks2Header;
  /** The copy that counts. */
  readonly copy: Luks2Copy;
  /** Both copies, valid and alike, and all key material. */
  readonly bytes: Uint8Array;
}

/** The bytes of a backup. Throws as readBackup(). */
export function readBackup2(area: LuksArea, header: Luks2Header): Promise<Uint8Array> {
  const { copyBytes } = header;
  return readSteadily(area, { length: headerAreaBytes2(header), head: copyBytes * 2 });
}

/** Whether it is of this version, if only its second copy is left. */
export async function isBackup2(bytes: Uint8Array): Promise<boolean> {
  if (hasLuksMagic(bytes)) return isLuks2(bytes);
  return !isBroken((await readCopies(memoryArea(bytes), bytes.length)).secondary);
}

/** Throws kind `corrupt-image` for one that is not whole, `unsupported` as readLuks2Header(). */
export async function parseBackup2(bytes: Uint8Array): Promise<Luks2Backup> {
  const copies = await readCopies(memoryArea(bytes), bytes.length);
  const header = headerOf(copies);
  const expected = headerAreaBytes2(header);
  if (bytes.length < expected) {
    const text = `the backup ends at ${bytes.length} bytes of ${expected}`;
    throw new BlockError('corrupt-image', `LUKS2 header: ${text}`);
  }
  const copy = newerOf(copies);
  const whole = Uint8Array.from(bytes.subarray(0, expected));
  if (!isWhole(copies)) {
    const pair = copyPair(copy);
    whole.set(pair.primary);
    whole.set(pair.secondary, header.copyBytes);
  }
  return { header, copy, bytes: whole };
}

function isWhole({ primary, secondary }: Luks2Copies): boolean {
  if (isBroken(primary) || isBroken(secondary)) return false;
  const isSameText = Buffer.compare(primary.text, secondary.text) === 0;
  return isSameText && primary.sequence === secondary.sequence;
}

function memoryArea(bytes: Uint8Array): Pick<LuksArea, 'read'> {
  return {
    read(offset, length) {
      return Promise.resolve(Uint8Array.from(bytes.subarray(offset, offset + length)));
    },
  };
}
