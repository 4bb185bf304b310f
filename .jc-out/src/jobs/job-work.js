// SPDX-License-Identifier: Apache-2.0
// What a job is given (its work, its setup, its surroundings), and what it tells of itself.
//
// A JobWork does the job; the Job (job.ts) drives it through its states and calls each method at
// most when its comment says so.
import { BlockError } from '../base/index.js';
export function changeRefused() {
    return new BlockError('unsupported', 'Job type does not support change');
}
