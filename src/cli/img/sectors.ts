// SPDX-License-Identifier: Apache-2.0
// Looking for the first 512-byte sector of a buffer that differs or is not zero.

import { isZero } from '../../codec/index.js';

const SECTOR = 512;

/** Offset of the first sector in which the buffers differ, or null; both have the same length. */
export function sectorOfDifference(a: Uint8Array, b: Uint8Array): number | null {
  if (Buffer.compare(a, b) === 0) return null;
  for (let at = 0; at < a.length; at += SECTOR) {
    if (Buffer.compare(a.subarray(at, at + SECTOR), b.subarray(at, at + SECTOR)) !== 0) return at;
  }
  return null;
}

/** Offset of the first sector that is not all zero, or null. */
export function sectorOfNonZero(buffer: Uint8Array): number | null {
  if (isZero(buffer)) return null;
  for (let at = 0; at < buffer.length; at += SECTOR) {
    if (!isZero(buffer.subarray(at, at + SECTOR))) return at;
  }
  return null;
}
