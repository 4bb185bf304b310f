// SPDX-License-Identifier: Apache-2.0
// How many iterations a password may cost, for a digest and a length of key.

import { BlockError } from '../../base/index.js';
import { iterationsPerMs } from './cost.js';
import type { DerivationKind, DeriveKey } from './wish.js';

/** About 20 ms of a processor in all: a LUKS header needs two lengths of key measured. */
const CARE = { sampleMs: 2.5, samples: 8 };
const MOST_ITERATIONS = 2 ** 31 - 1;
/** What the reference multiplies a rate by a time in. */
const MOST_PRODUCT = 2 ** 64;

/** What is asked of one password: `ms` milliseconds, and `least` iterations. */
export interface IterationWish extends DerivationKind {
  readonly ms: number;
  readonly least: number;
}

/**
 * Iterations, measured here and now, unless `rate` says how many take a millisecond. Throws kind
 * `too-large` for a time in which there are more than 2^31 − 1.
 */
export async function calibrated(
  { ms, least, ...kind }: IterationWish,
  derive: DeriveKey,
  rate?: number,
): Promise<number> {
  const perMs = rate ?? (await iterationsPerMs(kind, derive, CARE));
  const iterations = Math.round(perMs * ms);
  if (iterations <= MOST_ITERATIONS) return Math.max(least, iterations);
  const perSecond = Math.round(perMs * 1000);
  const why =
    perSecond * ms >= MOST_PRODUCT
      ? `${perSecond} too large to scale`
      : `${BigInt(iterations)} larger than ${MOST_ITERATIONS}`;
  throw new BlockError('too-large', `PBKDF iterations ${why}: Numerical result out of range`);
}
