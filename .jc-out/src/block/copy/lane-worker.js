// SPDX-License-Identifier: Apache-2.0
// The module that lane threads load: runs one task on descriptors that the main thread holds open.
//
// Everything blocks: a lane is a thread for exactly this. It opens, closes and remembers nothing
// but its scratch buffers.
import { readDescriptor, writeDescriptor } from '../../host/index.js';
import { runLaneTask, ScratchBuffer } from './lane-task.js';
/** The next task is there before the last one has been answered, so there may be two at once. */
const free = [];
export default async function runOnThread(message) {
    const scratch = free.pop() ?? new ScratchBuffer();
    try {
        return await runLaneTask(message.task, message.descriptors.map(descriptorFile), scratch);
    }
    finally {
        free.push(scratch);
    }
}
function descriptorFile(descriptor) {
    return {
        read: (buffer, offset) => readDescriptor(descriptor, buffer, offset),
        write: (buffer, offset) => writeDescriptor(descriptor, buffer, offset),
    };
}
