// SPDX-License-Identifier: Apache-2.0
// Randomness is injected: a seed replays a run. Not for secrets; those come from node:crypto.

/** Differs between processes and calls. Not by node:crypto, which takes 4 ms to load. */
export function freshSeed(): number {
  const [seconds, nanoseconds] = process.hrtime();
  return (Math.imul(process.pid, 0x9e3779b1) ^ Math.imul(seconds, 0x85ebca6b) ^ nanoseconds) >>> 0;
}

export interface Random {
  /** An integer from 0 to 2^32 − 1. */
  next(): number;
  /** An integer from 0 to bound − 1; bound from 1 to 2^32. */
  below(bound: number): number;
  /** True with probability `chance` (0 to 1). */
  chance(chance: number): boolean;
  fill(buffer: Uint8Array): void;
}

const STEP = 0x9e3779b9;

function mix(state: number): number {
  let mixed = state;
  mixed = Math.imul(mixed ^ (mixed >>> 16), 0x21f0aaad);
  mixed = Math.imul(mixed ^ (mixed >>> 15), 0x735a2d97);
  return mixed ^ (mixed >>> 15);
}

/**
 * A small, fast, well-mixed generator (splitmix32); the same seed gives the same run everywhere.
 */
export class SeededRandom implements Random {
  #state: number;

  constructor(seed: number) {
    this.#state = seed >>> 0;
  }

  next(): number {
    this.#state = (this.#state + STEP) >>> 0;
    return mix(this.#state) >>> 0;
  }

  below(bound: number): number {
    return Math.floor((this.next() / 0x1_0000_0000) * bound);
  }

  chance(chance: number): boolean {
    return this.next() < chance * 0x1_0000_0000;
  }

  fill(buffer: Uint8Array): void {
    let state = this.#state | 0;
    for (let index = 0; index < buffer.length; index += 1) {
      state = (state + STEP) | 0;
      buffer[index] = mix(state);
    }
    this.#state = state >>> 0;
  }
}
