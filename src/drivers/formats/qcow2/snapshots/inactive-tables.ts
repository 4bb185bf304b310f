// SPDX-License-Identifier: Apache-2.0
// Where the L2 tables of all snapshots lie, for those who guard them from being overwritten.
//
// Snapshots share most of them, so each is kept once; what lies past the end of the file is no
// table. An L1 table that cannot be read is an error: nothing would be guarded then.

import { BlockError, QCOW2_LIMITS } from '../../../../base/index.js';
import { entryHostOffset } from '../entries.js';
import { Guarded, viewOf } from '../metadata/index.js';
import type { Qcow2Image } from '../metadata/index.js';

/** Reads them where `guarded` (a set of `Guarded`) has them; writes nothing. */
export async function guardInactiveL2(image: Qcow2Image, guarded: number): Promise<void> {
  if ((guarded & Guarded.inactiveL2) === 0) return;
  const { snapshots } = image.snapshots;
  const bytes = snapshots.reduce((sum, { l1Entries }) => sum + l1Entries * 8, 0);
  if (bytes > QCOW2_LIMITS.inactiveL1Bytes) {
    const text = `${image.label}: overlap-check of inactive L2 tables: snapshots have ${bytes} ` +
      `bytes of L1 tables, more than ${QCOW2_LIMITS.inactiveL1Bytes}`;
    throw new BlockError('unsupported', text, { node: image.name });
  }
  const found = new Set<number>();
  for (const { l1Offset, l1Entries } of snapshots) {
    const length = l1Entries * 8;
    if (length === 0) continue;
    const l1 = new Uint8Array(length);
    await image.readFile(l1Offset, l1);
    const view = viewOf(l1);
    for (let at = 0; at < length; at += 8) {
      const offset = entryHostOffset(view.getUint32(at), view.getUint32(at + 4));
      if (offset !== 0 && offset < image.file.length) found.add(offset);
    }
  }
  image.overlaps.setInactiveL2(Float64Array.from(found));
}
