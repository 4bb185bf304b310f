// SPDX-License-Identifier: Apache-2.0
// Looking for the first 512-byte sector of a buffer that differs.

export const SECTOR_BYTES = 512;

/** Offset of the first sector in which the buffers differ, or null; both have the same length. */
export function sectorOfDifference(a: Uint8Array, b: Uint8Array): number | null {
  if (Buffer.compare(a, b) === 0) return null;
  for (let at = 0; at < a.length; at += SECTOR_BYTES) {
    const end = at + SECTOR_BYTES;
    if (Buffer.compare(a.subarray(at, end), b.subarray(at, end)) !== 0) return at;
  }
  return null;
}
