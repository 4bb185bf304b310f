// SPDX-License-Identifier: Apache-2.0
// Changes of keyslots as a model: eight passwords, what a wish makes of them, and whether it has to
// be refused. Wishes are random, among them such as contradict themselves; secrets are named after
// the password that they hold, and `gone` is none.

import fc from 'fast-check';

export const MODEL_PASSWORDS = ['a', 'b', 'c', 'd'] as const;
export const KEYSLOTS = 8;

/** A password, or null where the keyslot is erased. */
export type Slots = readonly (string | null)[];

export interface KeyslotWish {
  readonly state: 'active' | 'inactive';
  readonly keyslot?: number | undefined;
  readonly newSecret?: string | undefined;
  readonly oldSecret?: string | undefined;
  /** What opens the image for this change, or takes out the master key. */
  readonly by?: string | undefined;
  readonly withTime?: boolean | undefined;
  readonly force: boolean;
}

const slotNumber = fc.oneof(
  { weight: 9, arbitrary: fc.nat({ max: KEYSLOTS - 1 }) },
  // Of 2 ** 32 the reference takes the lower half, and erases keyslot 0.
  { weight: 1, arbitrary: fc.constantFrom(-1, 8, 2 ** 32 + 8) },
);
const secretId = fc.oneof(
  { weight: 9, arbitrary: fc.constantFrom<string>(...MODEL_PASSWORDS) },
  { weight: 1, arbitrary: fc.constant('gone') },
);
const perhaps = <T>(arbitrary: fc.Arbitrary<T>, freq = 1): fc.Arbitrary<T | undefined> =>
  fc.option(arbitrary, { nil: undefined, freq });

const common = {
  keyslot: perhaps(slotNumber, 2),
  by: perhaps(secretId),
  force: fc.oneof(
    { weight: 3, arbitrary: fc.constant(false) },
    { weight: 1, arbitrary: fc.constant(true) },
  ),
};
const rarely = <T>(arbitrary: fc.Arbitrary<T>): fc.Arbitrary<T | undefined> =>
  fc.oneof(
    { weight: 12, arbitrary: fc.constant(undefined) },
    { weight: 1, arbitrary },
  );

const adding = fc.record({
  ...common,
  state: fc.constant('active' as const),
  newSecret: perhaps(secretId, 12),
  oldSecret: rarely(secretId),
});
const erasing = fc.record({
  ...common,
  state: fc.constant('inactive' as const),
  newSecret: rarely(secretId),
  oldSecret: perhaps(secretId),
  withTime: rarely(fc.constant(true)),
});

export const keyslotWish: fc.Arbitrary<KeyslotWish> = fc.oneof(
  { weight: 2, arbitrary: adding },
  { weight: 3, arbitrary: erasing },
);

/** The keyslots afterwards; null where the change is refused. `opening` opens the image. */
export function changed(slots: Slots, wish: KeyslotWish, opening: string): Slots | null {
  const { keyslot } = wish;
  if (keyslot !== undefined && (keyslot < 0 || keyslot >= KEYSLOTS)) return null;
  return wish.state === 'active' ? added(slots, wish, opening) : erased(slots, wish);
}

function added(slots: Slots, wish: KeyslotWish, opening: string): Slots | null {
  const { newSecret, oldSecret, keyslot, force } = wish;
  if (newSecret === undefined || newSecret === 'gone' || oldSecret !== undefined) return null;
  const free = slots.indexOf(null);
  const slot = keyslot ?? free;
  if (slot < 0 || (slots[slot] !== null && !force)) return null;
  return slots.includes(wish.by ?? opening) ? slots.with(slot, newSecret) : null;
}

function erased(slots: Slots, wish: KeyslotWish): Slots | null {
  const { newSecret, oldSecret, keyslot, force, withTime } = wish;
  if (newSecret !== undefined || withTime === true || oldSecret === 'gone') return null;
  const hit = slots.map((each, index) =>
    keyslot === undefined ? each === oldSecret : index === keyslot,
  );
  if (keyslot === undefined && (oldSecret === undefined || !hit.includes(true))) return null;
  if (keyslot !== undefined && oldSecret !== undefined && slots[keyslot] !== oldSecret) return null;
  if (keyslot !== undefined && slots[keyslot] === null && !force) return null;
  const left = slots.map((each, index) => (hit[index] === true ? null : each));
  const losesAll = left.every((each) => each === null) && slots.some((each) => each !== null);
  return losesAll && !force ? null : left;
}

/** Members of the options, by their names in QMP. */
export function membersOf(wish: KeyslotWish): Record<string, string | number> {
  const { state, keyslot, newSecret, oldSecret, withTime } = wish;
  return {
    state,
    ...(keyslot !== undefined && { keyslot }),
    ...(newSecret !== undefined && { 'new-secret': newSecret }),
    ...(oldSecret !== undefined && { 'old-secret': oldSecret }),
    // No time is measured for a new password, here; the reference measures all the same.
    ...((state === 'active' || withTime === true) && { 'iter-time': 0 }),
  };
}
