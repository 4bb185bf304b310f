// SPDX-License-Identifier: Apache-2.0
// What a change of keyslots was given or found out is zeroes afterwards, however it ends: copies
// of passwords, keys that were derived, master keys.
import { beforeAll, describe, expect, it } from 'vitest';

import { deriveKey } from '../../../src/crypto/index.js';
import type { DeriveKey } from '../../../src/crypto/index.js';
import {
  amendKeyslots,
  HEADER_BYTES,
  parseLuksHeader,
} from '../../../src/crypto/luks/index.js';
import type { AmendKeyslots, PasswordSource } from '../../../src/crypto/luks/index.js';
import { makeLuks, MemoryArea, quickTools } from '../../helpers/luks-images.js';

/** Bytes that must be zeroes in the end, and what was handed out of them. */
class Witness {
  readonly secrets: Uint8Array[] = [];
  #calls = 0;

  constructor(readonly failing: number) {}

  readonly derive: DeriveKey = async (wish) => {
    this.#calls += 1;
    this.secrets.push(wish.password);
    if (this.#calls === this.failing) throw new Error('derived no more');
    const key = await deriveKey(wish);
    // A digest of 20 bytes may be known.
    if (wish.length !== 20) this.secrets.push(key);
    return key;
  };

  source(word: string | undefined): PasswordSource | undefined {
    if (word === undefined) return undefined;
    return () => {
      const copy = Uint8Array.from(Buffer.from(word));
      this.secrets.push(copy);
      return copy;
    };
  }
}

interface Words {
  readonly state: AmendKeyslots['state'];
  readonly keyslot?: number;
  readonly newPassword?: string;
  readonly oldPassword?: string;
  readonly password?: string;
}

const WISHES: readonly Words[] = [
  { state: 'active', newPassword: 'new' },
  { state: 'active', newPassword: 'new', keyslot: 0 },
  { state: 'active', newPassword: 'new', keyslot: 9 },
  { state: 'active', newPassword: 'new', password: 'wrong' },
  { state: 'active', newPassword: 'new', oldPassword: 'one' },
  { state: 'inactive', oldPassword: 'two' },
  { state: 'inactive', oldPassword: 'wrong' },
  { state: 'inactive', oldPassword: 'two', keyslot: 1 },
  { state: 'inactive', oldPassword: 'two', keyslot: 0 },
  { state: 'inactive', oldPassword: 'two', keyslot: 9 },
  { state: 'inactive', oldPassword: 'two', keyslot: 5 },
  { state: 'inactive', oldPassword: 'two', password: 'one' },
];

describe('a change of keyslots wipes what it was given', () => {
  let image: Uint8Array;
  beforeAll(async () => {
    image = (await makeLuks(['one', 'two'])).bytes;
  });

  it.each(WISHES.map((wish) => [JSON.stringify(wish), wish] as const))('%s', async (_, wish) => {
    for (const failing of [Infinity, 1, 2, 3]) {
      const witness = new Witness(failing);
      const area = new MemoryArea(image.slice());
      const header = parseLuksHeader(area.bytes.subarray(0, HEADER_BYTES), { detached: false });
      const members: AmendKeyslots = {
        state: wish.state,
        keyslot: wish.keyslot,
        newPassword: witness.source(wish.newPassword),
        oldPassword: witness.source(wish.oldPassword),
        password: witness.source(wish.password),
        openingPassword: witness.source('one') as PasswordSource,
      };
      const iterations = (): Promise<number> => Promise.resolve(1);
      const tools = { ...quickTools, derive: witness.derive, iterations };
      await amendKeyslots({ area, header }, members, { tools, force: true }).catch(() => undefined);
      for (const secret of witness.secrets) {
        expect(secret.every((byte) => byte === 0), `call ${failing}`).toBe(true);
      }
    }
  });
});
