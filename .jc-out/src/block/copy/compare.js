// SPDX-License-Identifier: Apache-2.0
// Compares ranges of two views in lanes: both are planned into host ranges, and each batch stops
// at its first difference.
//
// Nothing may change either view meanwhile. A range whose bytes some driver must see, and one with
// a failure, is `unknown`: the caller reads it through the nodes and names what is wrong.
import { must } from '../../base/index.js';
import { planView } from './chain.js';
import { FileTable, laneParts } from './lane-plan.js';
export class ViewComparer {
    #lanes;
    #first;
    #second;
    #cancel = new Int32Array(new SharedArrayBuffer(4));
    constructor(lanes, first, second) {
        this.#lanes = lanes;
        this.#first = first;
        this.#second = second;
    }
    /** Batches that have not begun end as `unknown`. */
    cancel() {
        Atomics.store(this.#cancel, 0, 1);
    }
    /** One batch; what lies past the end of a view counts as zero. Rejects on bad metadata. */
    async compare(offset, length) {
        const first = await planView(this.#first.node, offset, length);
        const second = await planView(this.#second.node, offset, length);
        if (first === null || second === null)
            return 'unknown';
        const table = new FileTable();
        const parts = laneParts(first, table);
        const step = {
            parts,
            length,
            target: { kind: 'compare', parts: laneParts(second, table) },
            zeroGranularity: 0,
            skipZeroes: false,
            deflate: false,
        };
        const task = { steps: [step], slab: null, cancel: this.#cancel };
        const results = await this.#lanes.run({ task, files: table.files }, this);
        const { difference = null, outcome } = must(results[0], 'each step has a result');
        if (outcome !== 'written')
            return 'unknown';
        return difference === null ? 'same' : offset + difference;
    }
}
