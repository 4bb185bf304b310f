// SPDX-License-Identifier: Apache-2.0
// Runs lane tasks on the event loop over host files, simulated ones included: the same steps, the
// same results as the threads give.
import { toBlockError } from '../../base/index.js';
import { runLaneTask, ScratchBuffer } from './lane-task.js';
export class InProcessRunner {
    #free = [];
    async run(batch) {
        const scratch = this.#free.pop() ?? new ScratchBuffer();
        try {
            return await runLaneTask(batch.task, batch.files.map(hostLaneFile), scratch);
        }
        finally {
            this.#free.push(scratch);
        }
    }
    close() {
        return Promise.resolve();
    }
}
function hostLaneFile(file) {
    return {
        read: (buffer, offset) => file.read(buffer, offset),
        write(buffer, offset) {
            try {
                return file.write(buffer, offset);
            }
            catch (error) {
                throw toBlockError(error, { path: file.path });
            }
        },
    };
}
