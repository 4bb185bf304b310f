// SPDX-License-Identifier: Apache-2.0
// What info and query-named-block-nodes say of a qcow2 image, supported by this program or not.

import { hasBit } from '../../../base/index.js';
import type { DriverInfo, SnapshotFacts } from '../../../block/index.js';
import type { LuksHeader } from '../../../crypto/luks/index.js';
import type { BitmapFacts } from './bitmaps/index.js';
import { encryptFacts } from './encryption/index.js';
import type { Qcow2Header } from './header.js';
import { Compatible, Incompatible } from './layout.js';

/** What listings.ts found; empty for images that are worked on. */
export interface Listings {
  readonly snapshots: readonly SnapshotFacts[];
  readonly bitmaps: readonly BitmapFacts[];
  /** Header of the encryption; null where there is none or another method. */
  readonly luks: LuksHeader | null;
}

const NOTHING: Listings = { snapshots: [], bitmaps: [], luks: null };

/** Facts from the image file alone; no other file is looked at. */
export function infoOf(header: Qcow2Header, listings: Listings = NOTHING): DriverInfo {
  const { fields, geometry } = header;
  const has = (bit: number): boolean => hasBit(fields.incompatibleFeatures, bit);
  const encrypted = fields.cryptMethod !== 0;
  const info = {
    clusterSize: geometry.clusterSize,
    dirty: has(Incompatible.dirty),
    corrupt: has(Incompatible.corrupt),
    specific: { type: 'qcow2', data: specificData(header, listings) },
  };
  const { snapshots } = listings;
  return {
    ...info,
    ...(encrypted ? { encrypted } : {}),
    ...(snapshots.length > 0 ? { snapshots } : {}),
  };
}

function specificData(
  header: Qcow2Header,
  { bitmaps, luks }: Listings,
): Record<string, unknown> {
  const { fields, geometry } = header;
  const has = (bit: number): boolean => hasBit(fields.incompatibleFeatures, bit);
  const data: Record<string, unknown> = {
    compat: fields.version === 2 ? '0.10' : '1.1',
    'compression-type': fields.compressionType === 1 ? 'zstd' : 'zlib',
  };
  if (fields.version >= 3) {
    data['lazy-refcounts'] = hasBit(fields.compatibleFeatures, Compatible.lazyRefcounts);
  }
  if (bitmaps.length > 0) data['bitmaps'] = bitmaps;
  data['refcount-bits'] = geometry.refcountBits;
  if (fields.cryptMethod !== 0) {
    data['encrypt'] = encryptFacts(luks);
  }
  if (header.dataFile !== null) data['data-file'] = header.dataFile;
  if (has(Incompatible.externalDataFile)) {
    data['data-file-raw'] = header.dataFileRaw;
  }
  if (fields.version >= 3) {
    data['corrupt'] = has(Incompatible.corrupt);
    data['extended-l2'] = has(Incompatible.extendedL2);
  }
  return data;
}
