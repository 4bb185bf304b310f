// SPDX-License-Identifier: Apache-2.0
// Compares ranges of two views in lanes: both are planned into host ranges, and each range stops
// at its first difference.
//
// Nothing may change either view meanwhile. A range whose bytes some driver must see, and one with
// a failure, is `unknown`: the caller reads it through the nodes and names what is wrong.

import { must } from '../../base/index.js';
import { planView } from './chain.js';
import type { NodeRef } from './engine/index.js';
import type { LaneExecutor } from './lane-executor.js';
import { FileTable, laneParts } from './lane-plan.js';
import type { Span } from './lane-plan.js';
import type { LaneStep } from './lane-task.js';

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

  /**
   * One batch, with an outcome for each of its ranges; what lies past the end of a view counts as
   * zero. Rejects on bad metadata.
   */
  async compare(spans: readonly Span[]): Promise<CompareOutcome[]> {
    const table = new FileTable();
    const steps: LaneStep[] = [];
    const stepOf: number[] = [];
    for (const { offset, length } of spans) {
      const first = await planView(this.#first.node, offset, length);
      const second = await planView(this.#second.node, offset, length);
      if (first === null || second === null) stepOf.push(NO_STEP);
      else {
        const target = { kind: 'compare', parts: laneParts(second, table) } as const;
        stepOf.push(steps.push({ ...PLAIN, parts: laneParts(first, table), length, target }) - 1);
      }
    }
    const task = { steps, slab: null, cancel: this.#cancel, ciphers: table.ciphers };
    const results =
      steps.length === 0 ? [] : await this.#lanes.run({ task, files: table.files }, this);
    return spans.map(({ offset }, index): CompareOutcome => {
      const step = must(stepOf[index], 'each range is planned or not');
      if (step === NO_STEP) return 'unknown';
      const { difference = null, outcome } = must(results[step], 'each step has a result');
      if (outcome !== 'written') return 'unknown';
      return difference === null ? 'same' : offset + difference;
    });
  }
}

const NO_STEP = -1;
const PLAIN = { zeroGranularity: 0, skipZeroes: false, deflate: false } as const;
