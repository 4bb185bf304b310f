// SPDX-License-Identifier: Apache-2.0
// Decides by seed which simulated calls answer inline and which later, and in which order the
// later ones run. Only promises are used, so a run depends on its seed and on nothing else.

import type { Eventually, Random } from '../../base/index.js';

interface Waiting {
  run(): void;
}

export class SimulatedScheduler {
  readonly #random: Random;
  readonly #laterChance: number;
  readonly #waiting: Waiting[] = [];
  #pumping = false;

  constructor(random: Random, laterChance: number) {
    this.#random = random;
    this.#laterChance = laterChance;
  }

  /** Runs `action` at once or, by seed, later; an inline failure throws. */
  perform<T>(action: () => T): Eventually<T> {
    if (this.#laterChance === 0 || !this.#random.chance(this.#laterChance)) return action();
    return this.later(action);
  }

  /** Runs `action` in a later turn, in seeded order among those that wait. */
  later<T>(action: () => T): Promise<T> {
    const result = new Promise<T>((resolve, reject) => {
      this.#waiting.push({
        run() {
          try {
            resolve(action());
          } catch (error) {
            reject(error as Error);
          }
        },
      });
    });
    if (!this.#pumping) {
      this.#pumping = true;
      void this.#pump();
    }
    return result;
  }

  async #pump(): Promise<void> {
    while (this.#waiting.length > 0) {
      const turns = 1 + this.#random.below(4);
      for (let turn = 0; turn < turns; turn += 1) await Promise.resolve();
      const [next] = this.#waiting.splice(this.#random.below(this.#waiting.length), 1);
      next?.run();
    }
    this.#pumping = false;
  }
}
