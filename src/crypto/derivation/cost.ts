// SPDX-License-Identifier: Apache-2.0
// What an iteration costs on this machine: in a few milliseconds and once for each kind of
// derivation to know beforehand what one takes; with more care to choose a number of iterations.
//
// What counts is the time that a processor worked. Samples are only ever too slow (another program
// on the same core, a slower clock), so that the fastest is the best.

import { assert } from '../../base/index.js';
import type { Derivation, DerivationKind, DeriveKey } from './wish.js';

export interface Care {
  /** A sample takes this long, in milliseconds of a processor. */
  readonly sampleMs: number;
  readonly samples: number;
}

const GLANCE: Care = { sampleMs: 1, samples: 2 };
const FIRST_ITERATIONS = 512;
const SHORTEST_MS = 0.001;
/** Two samples differ in length by no more, so that the first cannot mislead far. */
const MOST_GROWTH = 16;

const known = new Map<string, number>();

/** Milliseconds that a derivation will take; `derive` tells what the samples cost. */
export async function expectedMs(wish: Derivation, derive: DeriveKey): Promise<number> {
  const kind = `${wish.hash} ${wish.length}`;
  let rate = known.get(kind);
  if (rate === undefined) {
    rate = await iterationsPerMs(wish, derive, GLANCE);
    known.set(kind, rate);
  }
  return wish.iterations / rate;
}

/** Iterations in one millisecond of deriving keys of that kind. */
export async function iterationsPerMs(
  { hash, length }: DerivationKind,
  derive: DeriveKey,
  { sampleMs, samples }: Care,
): Promise<number> {
  const password = new Uint8Array(16);
  const salt = new Uint8Array(32);
  let iterations = FIRST_ITERATIONS;
  const rates: number[] = [];
  while (rates.length < samples) {
    let ms = -1;
    const onCost = (spent: number): void => {
      ms = spent;
    };
    await derive({ hash, password, salt, iterations, length, onCost });
    assert(ms >= 0, 'a derivation tells what it cost');
    // A clock that did not move says no more than that one of its steps is longer.
    ms = Math.max(ms, SHORTEST_MS);
    if (ms * 2 >= sampleMs) rates.push(iterations / ms);
    else {
      // That it was too short came out late where those before were disturbed.
      rates.length = 0;
      iterations = Math.ceil(iterations * Math.min(MOST_GROWTH, sampleMs / ms));
    }
  }
  return Math.max(...rates);
}
