// SPDX-License-Identifier: Apache-2.0
// Byte ranges that someone works on now; others wait until an overlapping one is free again.
//
// Taking is synchronous and only allowed when nothing overlaps; waiting is looked at again after
// every release, so a waiter must check anew before it takes.

import { assert } from '../../base/index.js';

export interface HeldRange {
  readonly offset: number;
  readonly length: number;
}

interface Held extends HeldRange {
  waiters: (() => void)[];
}

export class RangeLocks {
  readonly #held = new Set<Held>();

  /** What is held now. */
  ranges(): Iterable<HeldRange> {
    return this.#held;
  }

  get count(): number {
    return this.#held.size;
  }

  overlaps(offset: number, length: number): boolean {
    return this.#find(offset, length) !== null;
  }

  /** Up to where [offset, end) is free: the begin of the first held range in it, or `end`. */
  freeUntil(offset: number, end: number): number {
    let until = end;
    for (const held of this.#held) {
      if (held.offset < until && offset < held.offset + held.length) until = held.offset;
    }
    return Math.max(offset, until);
  }

  /** Nothing may overlap. Release exactly once. */
  take(offset: number, length: number): () => void {
    assert(!this.overlaps(offset, length), `range at ${offset} is taken`);
    return this.join(offset, length);
  }

  /** Beside others that hold parts of it. Release exactly once. */
  join(offset: number, length: number): () => void {
    const held: Held = { offset, length, waiters: [] };
    this.#held.add(held);
    return () => {
      assert(this.#held.delete(held), `range at ${offset} is released twice`);
      for (const waiter of held.waiters) waiter();
    };
  }

  /** Waits until one range that overlaps is released; undefined when none does. */
  wait(offset: number, length: number): Promise<void> | undefined {
    const held = this.#find(offset, length);
    if (held === null) return undefined;
    return new Promise((resolve) => {
      held.waiters.push(resolve);
    });
  }

  #find(offset: number, length: number): Held | null {
    for (const held of this.#held) {
      if (held.offset < offset + length && offset < held.offset + held.length) return held;
    }
    return null;
  }
}
