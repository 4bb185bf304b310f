// SPDX-License-Identifier: Apache-2.0
// The pace of an amendment: its parts follow one another, and it can be given up between steps.

import { BlockError } from '../../../../base/index.js';
import type { AmendContext } from '../../../../block/index.js';

/** Units of progress for each part. */
const PART = 1000;

export class AmendWork {
  readonly #context: AmendContext;
  readonly #total: number;
  #before = 0;

  constructor(context: AmendContext, parts: number) {
    this.#context = context;
    this.#total = parts * PART;
  }

  /** Throws kind `cancelled` where nobody wants it any more; what is done is consistent. */
  step(done: number, of: number): void {
    if (this.#context.isCancelled?.() === true) {
      throw new BlockError('cancelled', 'Operation canceled');
    }
    const part = of === 0 ? PART : Math.floor((PART * done) / of);
    this.#context.progress?.(this.#before + part, this.#total);
  }

  partDone(): void {
    this.#before += PART;
    this.#context.progress?.(this.#before, this.#total);
  }
}
