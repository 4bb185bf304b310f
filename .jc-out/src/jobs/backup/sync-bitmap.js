// SPDX-License-Identifier: Apache-2.0
// The dirty bitmap of a backup: frozen while the job runs, and what becomes of it afterwards.
//
// A bitmap may say too much, never too little. A success hands over to the successor, a failure
// gives everything back, `always` hands over in both cases and marks what has not reached the
// target; `never` changes nothing. The end is synchronous: no write falls between.
import { freezeBitmap } from '../../block/index.js';
export class SyncBitmap {
    mode;
    #succession;
    #over = false;
    /** The node is drained, so that frozen bits and the job's start are one moment. */
    constructor(source, { bitmap, mode }, user) {
        this.mode = mode;
        this.#succession = freezeBitmap(source, bitmap, user);
    }
    /** Marks the units that frozen bits lie in. */
    choose(units) {
        const { frozen } = this.#succession;
        for (let run = frozen.nextDirty(0); run !== null;) {
            units.set(run.offset, run.length);
            const end = run.offset + run.length;
            run = end < frozen.size ? frozen.nextDirty(end) : null;
        }
    }
    succeed() {
        if (!this.#ends())
            return;
        if (this.mode === 'never')
            this.#succession.reclaim();
        else
            this.#succession.abdicate();
    }
    /** `uncopied`: units that were wanted and may not be in the target, on disk. */
    fail(uncopied) {
        if (!this.#ends())
            return;
        if (this.mode !== 'always') {
            this.#succession.reclaim();
            return;
        }
        const bitmap = this.#succession.abdicate();
        for (let offset = uncopied.nextDirty(0); offset >= 0;) {
            const length = uncopied.dirtyRun(offset, uncopied.length - offset);
            bitmap.set(offset, length);
            offset = uncopied.nextDirty(offset + length);
        }
    }
    /** For a job that never came to be; may be called at any time. */
    letGo() {
        if (this.#ends())
            this.#succession.reclaim();
    }
    /** The first end counts. */
    #ends() {
        const isFirst = !this.#over;
        this.#over = true;
        return isFirst;
    }
}
