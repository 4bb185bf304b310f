// SPDX-License-Identifier: Apache-2.0
// Where the work of a job waits: one place, taken by the work alone, left when someone wakes it.
//
// Others can wait until the work has come to rest here, or is told to be at rest elsewhere.

import { assert } from '../base/index.js';

export class Parking {
  readonly #owner: string;
  #wake: (() => void) | null = null;
  readonly #waiters: (() => void)[] = [];

  /** `owner` is named when it parks twice, which is a programmer's mistake. */
  constructor(owner: string) {
    this.#owner = owner;
  }

  get taken(): boolean {
    return this.#wake !== null;
  }

  /** Does nothing where nobody is parked. */
  wake(): void {
    this.#wake?.();
  }

  /** Waits for wake(), which `arm` may hand on; what it gives back is called when it is over. */
  async park(arm?: (wake: () => void) => () => void): Promise<void> {
    assert(this.#wake === null, `job ${this.#owner} is parked twice`);
    await new Promise<void>((resolve) => {
      let disarm: (() => void) | undefined = undefined;
      const wake = (): void => {
        if (this.#wake === null) return;
        this.#wake = null;
        disarm?.();
        resolve();
      };
      this.#wake = wake;
      disarm = arm?.(wake);
      this.tellRest();
    });
  }

  /** Resolves at the next rest. */
  nextRest(): Promise<void> {
    return new Promise((resolve) => void this.#waiters.push(resolve));
  }

  /** The work has come to rest, here or for good. */
  tellRest(): void {
    for (const resolve of this.#waiters.splice(0)) resolve();
  }
}
