// SPDX-License-Identifier: Apache-2.0
// Which images are not opened read-write.

import { BlockError, hasBit } from '../../../base/index.js';
import type { Qcow2Header } from './header.js';
import { Incompatible } from './layout.js';

/** Refuses read-write on images marked corrupt. */
export function requireWritable(header: Qcow2Header, context: { path: string }): void {
  const bits = header.fields.incompatibleFeatures;
  const detail = `incompatible_features 0x${bits.lo.toString(16)}`;
  if (hasBit(bits, Incompatible.corrupt)) {
    throw new BlockError(
      'access-denied',
      `qcow2: Image is corrupt; cannot be opened read/write (${detail})`,
      { ...context, detail },
    );
  }
}
