// SPDX-License-Identifier: Apache-2.0
// The module that lane threads load: runs one task on descriptors that the main thread holds open.
//
// Everything blocks: a lane is a thread for exactly this. It opens, closes and remembers nothing
// but its scratch buffer.

import { readDescriptor, writeDescriptor } from '../../host/index.js';
import { runLaneTask, ScratchBuffer } from './lane-task.js';
import type { LaneFile, LaneResult, LaneTask } from './lane-task.js';

export interface LaneMessage {
  readonly task: LaneTask;
  readonly descriptors: readonly number[];
}

const scratch = new ScratchBuffer();

export default function runOnThread(message: LaneMessage): Promise<LaneResult[]> {
  return runLaneTask(message.task, message.descriptors.map(descriptorFile), scratch);
}

function descriptorFile(descriptor: number): LaneFile {
  return {
    read: (buffer, offset) => readDescriptor(descriptor, buffer, offset),
    write: (buffer, offset) => writeDescriptor(descriptor, buffer, offset),
  };
}
