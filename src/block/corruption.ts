// SPDX-License-Identifier: Apache-2.0
// The line in which a program tells its user that an image was found corrupt. Scripts look for it,
// in the output of tools and of the daemon: it is worded, and begins, as the reference has it.

import type { CorruptionReport } from './driver.js';

/** Without the end of the line. */
export function corruptionText({ message, fatal }: CorruptionReport): string {
  const kind = fatal ? 'Marking image as corrupt' : 'Image is corrupt';
  const later = fatal ? 'further' : 'further non-fatal';
  return `qcow2: ${kind}: ${message}; ${later} corruption events will be suppressed`;
}
