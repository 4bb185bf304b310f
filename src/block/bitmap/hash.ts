// SPDX-License-Identifier: Apache-2.0
// SHA-256 of a bitmap's bits, to compare them with those of another program.
//
// The bits are hashed as they were at the begin, in 64-bit words, little-endian, the lowest bit
// first. Between parts of some megabytes others have a turn.

import { BITMAP_LIMITS } from '../../base/index.js';
import type { DirtyBitmap } from './dirty-bitmap.js';

export async function bitmapSha256(bitmap: DirtyBitmap): Promise<string> {
  const { createHash } = await import('node:crypto');
  const hash = createHash('sha256');
  let bytes = 0;
  for (const part of bitmap.copy(null).parts()) {
    hash.update(part);
    bytes += part.length;
    if (bytes < BITMAP_LIMITS.hashedAtOnce) continue;
    bytes = 0;
    await new Promise<void>((resolve) => {
      setImmediate(resolve);
    });
  }
  return hash.digest('hex');
}
