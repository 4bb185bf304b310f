// SPDX-License-Identifier: Apache-2.0
// One L2 table named by many L1 entries: a few kilobytes that say more extents than anybody could
// ever list. No writer makes two entries of one L1 table alike, so what has too many is refused
// where ranges are told; single reads still work.

import { QCOW2_LIMITS } from '../../../../base/index.js';
import type { Qcow2Image } from '../metadata/index.js';

const OFFSET_HI = 0x00ff_ffff;
const OFFSET_LO = 0xffff_fe00;

/** Throws kind `corrupt-image` when L2 tables stand for too many places at once. */
export function requireOwnTables(image: Qcow2Image): void {
  const { l2Entries } = image.geometry;
  const entries = image.l1.length / 8;
  const most = Math.floor(QCOW2_LIMITS.sharedTableEntries / l2Entries);
  if (entries <= most) return;
  const offsets = new Float64Array(entries);
  let tables = 0;
  let last = 0;
  let isRising = true;
  for (let index = 0; index < entries; index += 1) {
    const hi = image.l1View.getUint32(index * 8) & OFFSET_HI;
    const lo = (image.l1View.getUint32(index * 8 + 4) & OFFSET_LO) >>> 0;
    if (hi === 0 && lo === 0) continue;
    const offset = hi * 2 ** 32 + lo;
    offsets[tables] = offset;
    tables += 1;
    isRising &&= offset > last;
    last = offset;
  }
  if (isRising || tables <= most) return;
  const named = offsets.subarray(0, tables).sort();
  let shared = 0;
  for (let index = 1; index < tables; index += 1) {
    if (named[index] === named[index - 1]) shared += 1;
  }
  if (shared <= most) return;
  throw image.corruptError(`${shared} L1 entries name L2 tables that others name as well`);
}
