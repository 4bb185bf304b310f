// SPDX-License-Identifier: Apache-2.0
// Data clusters of one L2 table as runs of a block status: the usual entry, looked at in a loop
// without calls, which a million clusters in random order need. It ends at any other entry, which
// is for RunPlan; so do images with extended L2 entries, encryption or a data file.

import { dataSpan, StatusFlag } from '../../../../block/index.js';
import type { StatusRuns } from '../../../../block/index.js';
import type { Qcow2Image, Table } from '../metadata/index.js';

/** Bytes of a standard entry. */
const ENTRY = 8;
/** Bits 53 to 62, which a data entry of an offset up to 2^53 has not. */
const NOT_DATA_HI = 0x7fe0_0000;
const OFFSET_HI = 0x001f_ffff;
const STORED = StatusFlag.allocated | StatusFlag.data;

export interface DataTable {
  readonly image: Qcow2Image;
  readonly table: Table | null;
  /** Holes of the file are looked for. */
  readonly holes: boolean;
}

/** Data is not where, or not what, the entries say. */
function isApart({ hasDataFile, cipher }: Qcow2Image): boolean {
  return hasDataFile || cipher !== null;
}

/** Adds runs from guest offset `at` on; gives where it ended, which is `at` when it added none. */
export function addDataRuns(
  { image, table, holes }: DataTable,
  { at, end }: { readonly at: number; readonly end: number },
  runs: StatusRuns,
): number {
  const { geometry, clusterSize, data } = image;
  const { l2Coverage, l2EntryBytes } = geometry;
  const inTable = at % l2Coverage;
  if (table === null || l2EntryBytes !== ENTRY || isApart(image) || inTable % clusterSize !== 0) {
    return at;
  }
  const { view } = table;
  const last = Math.min(end, at - inTable + l2Coverage);
  let offset = at;
  for (let place = (inTable / clusterSize) * ENTRY; offset < last; place += ENTRY) {
    const hi = view.getUint32(place);
    const lo = view.getUint32(place + 4);
    const hostOffset = (hi & OFFSET_HI) * 2 ** 32 + lo;
    const isData = (hi & NOT_DATA_HI) === 0 && (lo & (clusterSize - 1)) === 0;
    if (!isData || hostOffset === 0 || runs.isFull) break;
    const length = Math.min(clusterSize, last - offset);
    const span = holes ? dataSpan(data, hostOffset, length) : length;
    if (span === length) runs.add(length, STORED, hostOffset);
    else if (span === -length) runs.add(length, STORED | StatusFlag.zero, hostOffset);
    else {
      // RunPlan asks again, and meets the failure if it is one.
      if (span instanceof Promise) span.catch(() => undefined);
      break;
    }
    offset += length;
  }
  return offset;
}
