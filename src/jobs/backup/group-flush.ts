// SPDX-License-Identifier: Apache-2.0
// Flushes that several users share: who asks while one runs waits for the next, for the one that
// runs may have begun before what he wants on disk was written.

import type { NodeRef } from '../../block/copy/index.js';

export class GroupFlush {
  readonly #at: NodeRef;
  /** The flush that began last; never rejects. */
  #begun: Promise<void> = Promise.resolve();
  /** Begins when that one is over, for all who asked meanwhile. */
  #next: Promise<void> | null = null;

  constructor(at: NodeRef) {
    this.#at = at;
  }

  /** Resolves when all that was written before the call is on disk. */
  flush(): Promise<void> {
    this.#next ??= this.#after(this.#begun);
    return this.#next;
  }

  async #after(earlier: Promise<void>): Promise<void> {
    await earlier;
    this.#next = null;
    const flushing = this.#flushNode();
    this.#begun = flushing.catch(() => undefined);
    await flushing;
  }

  async #flushNode(): Promise<void> {
    await this.#at.node.flush();
  }
}
