// SPDX-License-Identifier: Apache-2.0
// Compares ranges of two views in lanes: both are planned into host ranges, and each batch stops
// at its first difference.
//
// Nothing may change either view meanwhile. A range whose bytes some driver must see, and one with
// a failure, is `unknown`: the caller reads it through the nodes and names what is wrong.

import { must } from '../../base/index.js';
import { planView } from './chain.js';
import type { NodeRef } from './engine/index.js';
import type { LaneExecutor } from './lane-executor.js';
import { FileTable, laneParts } from './lane-plan.js';

/** The first byte that differs, `same`, or `unknown`: lanes could not tell. */
export type CompareOutcome = number | 'same' | 'unknown';

export class ViewComparer {
  readonly #lanes: LaneExecutor;
  readonly #first: NodeRef;
  readonly #second: NodeRef;
  readonly #cancel = new Int32Array(new SharedArrayBuffer(4));

  constructor(lanes: LaneExecutor, first: NodeRef, second: NodeRef) {
    this.#lanes = lanes;
    this.#first = first;
    this.#second = second;
  }

  /** Batches that have not begun end as `unknown`. */
  cancel(): void {
    Atomics.store(this.#cancel, 0, 1);
  }

  /** One batch; what lies past the end of a view counts as zero. Rejects on bad metadata. */
  async compare(offset: number, length: number): Promise<CompareOutcome> {
    const first = await planView(this.#first.node, offset, length);
    const second = await planView(this.#second.node, offset, length);
    if (first === null || second === null) return 'unknown';
    const table = new FileTable();
    const parts = laneParts(first, table);
    const step = {
      parts,
      length,
      target: { kind: 'compare', parts: laneParts(second, table) } as const,
      zeroGranularity: 0,
      skipZeroes: false,
      deflate: false,
    };
    const task = { steps: [step], slab: null, cancel: this.#cancel };
    const results = await this.#lanes.run({ task, files: table.files }, this);
    const { difference = null, outcome } = must(results[0], 'each step has a result');
    if (outcome !== 'written') return 'unknown';
    return difference === null ? 'same' : offset + difference;
  }
}
