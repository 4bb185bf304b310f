// SPDX-License-Identifier: Apache-2.0
// Walks over the block status of a whole image, which may be millions of runs that are all in
// memory: the event loop, and whoever pauses or cancels the job, get their turns in between.
import { COPY_LIMITS } from '../base/index.js';
export class ScanPace {
    #steps = 0;
    /** To be asked at each step; true when others are to have a turn before the next. */
    due() {
        this.#steps += 1;
        if (this.#steps < COPY_LIMITS.scanSteps)
            return false;
        this.#steps = 0;
        return true;
    }
}
