// SPDX-License-Identifier: Apache-2.0
// A copy of a LUKS version 2 header made of another: as the first or the second, and perhaps with
// another text. Everything else stays as it is; the checksum is made anew.

import { assert } from '../../base/index.js';
import { LUKS_MAGIC } from '../luks/index.js';
import { checksumOf } from './header.js';
import type { Luks2Copy } from './header.js';
import {
  BINARY_BYTES,
  CHECKSUM_AT,
  CHECKSUM_BYTES,
  HEADER_OFFSET_AT,
  SECOND_MAGIC,
  SEQUENCE_AT,
} from './layout.js';

export interface CopyPair {
  readonly primary: Uint8Array;
  readonly secondary: Uint8Array;
}

export interface NewText {
  readonly text: string;
  readonly sequence: bigint;
}

/** Both copies as they follow from one. */
export function copyPair(copy: Luks2Copy, change?: NewText): CopyPair {
  return {
    primary: encodeCopy(copy, 'primary', change),
    secondary: encodeCopy(copy, 'secondary', change),
  };
}

function encodeCopy(
  { bytes: old, raw }: Luks2Copy,
  place: keyof CopyPair,
  change?: NewText,
): Uint8Array {
  const bytes = Uint8Array.from(old);
  const view = new DataView(bytes.buffer);
  bytes.set(place === 'primary' ? LUKS_MAGIC : SECOND_MAGIC);
  view.setBigUint64(HEADER_OFFSET_AT, place === 'primary' ? 0n : BigInt(bytes.length));
  if (change !== undefined) {
    const text = Buffer.from(change.text);
    assert(BINARY_BYTES + text.length < bytes.length, 'a text fits where a longer one was');
    view.setBigUint64(SEQUENCE_AT, change.sequence);
    bytes.fill(0, BINARY_BYTES);
    bytes.set(text, BINARY_BYTES);
  }
  const checksum = checksumOf(bytes, raw);
  assert(!('because' in checksum), 'the checksum of a copy that was believed is known');
  bytes.fill(0, CHECKSUM_AT, CHECKSUM_AT + CHECKSUM_BYTES);
  bytes.set(checksum, CHECKSUM_AT);
  return bytes;
}
