// SPDX-License-Identifier: Apache-2.0
// Which qcow2 features this program works on; the others are refused by name in one line.
//
// `info` still reports an image that is refused here: it is opened only to look, and no file that
// the image names is touched.

import { BlockError, hasBit } from '../../../base/index.js';
import type { Qcow2Header } from './header.js';
import { Incompatible } from './layout.js';

/** The first feature of the image that cannot be worked on, or null. */
export function unsupportedFeature({ fields }: Qcow2Header): string | null {
  if (fields.cryptMethod === 0) return null;
  const kind = fields.cryptMethod === 2 ? 'LUKS' : 'AES';
  return `qcow2 ${kind} encryption is not supported (crypt_method ${fields.cryptMethod})`;
}

/** Throws kind `unsupported` naming the feature, its field and the value. */
export function requireSupported(header: Qcow2Header, context: { path: string }): void {
  const reason = unsupportedFeature(header);
  if (reason !== null) throw new BlockError('unsupported', reason, context);
}

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
