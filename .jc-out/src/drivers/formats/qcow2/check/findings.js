// SPDX-License-Identifier: Apache-2.0
// What a check has found: counters, and words for the findings up to a limit.
//
// Corruption is data that may be lost, a leak is space that is lost. Words are made only while
// there is room for them, since a hostile image has findings without end.
import { IMAGE_LIMITS } from '../../../../base/index.js';
export class Findings {
    messages = [];
    corruptions = 0;
    leaks = 0;
    checkErrors = 0;
    corruptionsFixed = 0;
    leaksFixed = 0;
    /** Why the check or its repair ended early; null while it has not. */
    failure = null;
    /** Messages that there is room for. */
    get room() {
        return IMAGE_LIMITS.checkMessages - this.messages.length;
    }
    /** Words what is found `times` times over. */
    say(message, times = 1) {
        for (let room = Math.min(times, this.room); room > 0; room -= 1)
            this.messages.push(message());
    }
    corrupt(message, times = 1) {
        this.corruptions += times;
        this.say(message, times);
    }
    leak(message) {
        this.leaks += 1;
        this.say(message);
    }
}
