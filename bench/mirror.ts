// SPDX-License-Identifier: Apache-2.0
// How fast does blockdev-mirror copy a whole disk to a new image and pivot to it? The target is a
// fresh qcow2; the job is told to complete as soon as it is READY.
import type { Bench } from './harness.js';
import { measureWholeCopy } from './job-runs.js';

export const bench: Bench = {
  name: 'mirror',
  question: 'How fast does blockdev-mirror copy a whole disk to a new image?',
  async run(context) {
    return [
      await measureWholeCopy(context, 'blockdev-mirror', 'dense'),
      await measureWholeCopy(context, 'blockdev-mirror', 'sparse'),
    ];
  },
};
