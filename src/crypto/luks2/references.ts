// SPDX-License-Identifier: Apache-2.0
// What members of a LUKS version 2 header say of each other.
//
// Source: "LUKS2 On-Disk Format Specification" 1.1.1, sections 3.3 to 3.5. A digest names the
// keyslots and segments whose key it verifies, a token the keyslots that it opens; each of them is
// there, and each keyslot belongs to one digest, so that its key can be told from noise.

import { corrupt } from './fields.js';
import type { Fields } from './fields.js';

type Members = readonly (readonly [number, Fields])[];

interface Known {
  readonly keyslots: readonly number[];
  readonly segments: readonly number[];
}

/** Throws kind `corrupt-image`. */
export function requireReferences(known: Known, digests: Members, tokens: Members): void {
  const owned = new Set<number>();
  for (const [, digest] of digests) {
    for (const keyslot of requireKnown(digest, 'keyslots', known)) {
      if (owned.has(keyslot)) throw corrupt(`keyslot ${keyslot} belongs to more than one digest`);
      owned.add(keyslot);
    }
    requireKnown(digest, 'segments', known);
  }
  for (const [, token] of tokens) requireKnown(token, 'keyslots', known);
  const alone = known.keyslots.find((keyslot) => !owned.has(keyslot));
  if (alone !== undefined) throw corrupt(`keyslot ${alone} belongs to no digest`);
}

function requireKnown(fields: Fields, name: keyof Known, known: Known): ReadonlySet<number> {
  const numbers = new Set(fields.numbers(name));
  const there = new Set(known[name]);
  for (const number of numbers) {
    if (there.has(number)) continue;
    throw corrupt(`'${fields.path}.${name}' names ${number}, which is not there`);
  }
  return numbers;
}
