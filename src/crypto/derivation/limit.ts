// SPDX-License-Identifier: Apache-2.0
// The time that unlocking one image may take: an image says itself how many iterations it wants,
// of each of its keyslots, and a hostile one wants hours.
//
// Expected costs add up over everything that one unlock derives. What a usual image wants is let
// through without measuring what this machine can do.

import { BlockError, CRYPTO_LIMITS } from '../../base/index.js';
import { expectedMs } from './cost.js';
import { deriveKey } from './derive.js';
import { workOf } from './wish.js';
import type { Derivation, DeriveKey } from './wish.js';

export interface DerivationLimit {
  /** As messages name the image. */
  readonly image: string;
  /** Option `key-derivation-limit`. */
  readonly limitSeconds?: number | bigint | undefined;
  /** Ends the derivation that runs, with kind `cancelled`. */
  readonly signal?: AbortSignal | undefined;
}

/** What a machine does in a second at the least, of what workOf() counts. */
const SLOWEST_PER_SECOND = 200_000;
const MOST_ITERATIONS = 2 ** 31 - 1;
/** A keyslot and the digest of the master key, eight times. */
const MOST_DERIVATIONS = 16;

/**
 * Derives for one unlock. Throws kind `too-large` before the derivation that would go beyond the
 * limit, and `invalid-option` for a limit that is none.
 */
export function limitedDerive(
  { image, signal, ...limit }: DerivationLimit,
  derive: (wish: Derivation, signal?: AbortSignal) => Promise<Uint8Array> = deriveKey,
): DeriveKey {
  const limitSeconds = Number(limit.limitSeconds ?? CRYPTO_LIMITS.derivationSeconds);
  requireLimit(limitSeconds);
  const negligible = (limitSeconds * SLOWEST_PER_SECOND) / MOST_DERIVATIONS;
  let totalMs = 0;
  return async (wish) => {
    if (wish.origin !== undefined && workOf(wish) > negligible) {
      totalMs += await expectedMs(wish, derive);
      if (totalMs > limitSeconds * 1000) throw refusal(image, wish, { totalMs, limitSeconds });
    }
    requirePossible(image, wish);
    return derive(wish, signal);
  };
}

function requireLimit(limitSeconds: number): void {
  if (limitSeconds >= 1) return;
  const text = `key-derivation-limit must be at least 1 second, not ${limitSeconds}`;
  throw new BlockError('invalid-option', text);
}

/** A header has 32 bits for them, and no library takes more than 31. */
function requirePossible(image: string, { origin = 'a key', iterations }: Derivation): void {
  if (iterations <= MOST_ITERATIONS) return;
  const text = `the ${iterations} iterations of ${origin} are more than ${MOST_ITERATIONS}`;
  throw new BlockError('too-large', `Unlocking '${image}' is not possible: ${text}`);
}

function refusal(
  image: string,
  { origin, iterations }: Derivation,
  { totalMs, limitSeconds }: { readonly totalMs: number; readonly limitSeconds: number },
): BlockError {
  const seconds = Math.ceil(totalMs / 1000);
  return new BlockError(
    'too-large',
    `Unlocking '${image}' would take about ${seconds} s with the ${iterations} iterations of ` +
      `${origin}, more than the ${limitSeconds} s of 'key-derivation-limit'`,
  );
}
