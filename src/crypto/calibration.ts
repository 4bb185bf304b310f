// SPDX-License-Identifier: Apache-2.0
// How many iterations a password may cost: measured, for a digest and a length of key.
//
// The number doubles until one derivation takes long enough to be told from noise; then the
// fastest of a few counts, since a busy machine makes derivations slower, never faster.

import type { Clock } from '../base/index.js';
import type { Derivation } from './derivation.js';
import type { HashName } from './names.js';

const FIRST_ITERATIONS = 1024;
/** One measurement takes this long at least, in milliseconds. */
const SAMPLE_MS = 8;
const SAMPLES = 3;
const MOST_ITERATIONS = 2 ** 31 - 1;

/** Iterations in one millisecond of deriving keys of `length` bytes. */
export async function iterationsPerMs(
  { hash, length }: { readonly hash: HashName; readonly length: number },
  derive: (wish: Derivation) => Promise<Uint8Array>,
  clock: Clock,
): Promise<number> {
  const password = new Uint8Array(16);
  const salt = new Uint8Array(32);
  const measure = async (iterations: number): Promise<number> => {
    const start = clock.now();
    await derive({ hash, password, salt, iterations, length });
    return clock.now() - start;
  };
  let iterations = FIRST_ITERATIONS;
  let best = await measure(iterations);
  while (best < SAMPLE_MS && iterations < MOST_ITERATIONS / 2) {
    iterations *= 2;
    best = await measure(iterations);
  }
  for (let sample = 1; sample < SAMPLES; sample += 1) {
    best = Math.min(best, await measure(iterations));
  }
  return iterations / best;
}

/** Iterations that take `ms` milliseconds, from `least` to 2^31 − 1. */
export function iterationsFor(perMs: number, ms: number, least: number): number {
  return Math.round(Math.min(MOST_ITERATIONS, Math.max(least, perMs * ms)));
}
