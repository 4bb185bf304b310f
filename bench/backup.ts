// SPDX-License-Identifier: Apache-2.0
// How fast does blockdev-backup copy a whole disk to a new image? The target is a fresh qcow2.
import type { Bench } from './harness.js';
import { measureWholeCopy } from './job-runs.js';

export const bench: Bench = {
  name: 'backup',
  question: 'How fast does blockdev-backup copy a whole disk to a new image?',
  async run(context) {
    return [
      await measureWholeCopy(context, 'blockdev-backup', 'dense'),
      await measureWholeCopy(context, 'blockdev-backup', 'sparse'),
    ];
  },
};
