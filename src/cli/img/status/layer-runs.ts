// SPDX-License-Identifier: Apache-2.0
// One layer's block status for a walk from its begin to its end: asked in batches, told run by run.

import { must, settle, type Eventually } from '../../../base/index.js';
import { fillStatusRuns, StatusFlag, StatusRuns } from '../../../block/index.js';
import type { Node } from '../../../block/index.js';

export class LayerRuns {
  readonly node: Node;
  readonly #runs = new StatusRuns({ exact: true, placed: false });
  /** Offset where the present run begins. */
  #start = 0;
  #index = 0;

  constructor(node: Node) {
    this.node = node;
  }

  /** Goes to the run at `offset`, which is in the layer; wait for a promise. */
  find(offset: number): Eventually<void> {
    const runs = this.#runs;
    if (offset < this.#start) this.#index = runs.count;
    for (; this.#index < runs.count; this.#index += 1) {
      const length = must(runs.lengths[this.#index], 'length of a run');
      if (offset < this.#start + length) return undefined;
      this.#start += length;
    }
    const range = { offset, length: this.node.length - offset };
    return settle(fillStatusRuns(this.node, range, runs), () => {
      this.#start = offset;
      this.#index = 0;
    });
  }

  /** Bytes from `offset`, which is in the present run, to the end of the run. */
  lengthFrom(offset: number): number {
    return this.#start + must(this.#runs.lengths[this.#index], 'length of a run') - offset;
  }

  get isAllocated(): boolean {
    return (this.#flags & StatusFlag.allocated) !== 0;
  }

  /** Bytes are stored that may be other than zero. */
  get isData(): boolean {
    return (this.#flags & (StatusFlag.data | StatusFlag.zero)) === StatusFlag.data;
  }

  get #flags(): number {
    return must(this.#runs.flags[this.#index], 'flags of a run');
  }
}
