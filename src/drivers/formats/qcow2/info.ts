// SPDX-License-Identifier: Apache-2.0
// What info and query-named-block-nodes say of a qcow2 image, supported by this program or not.

import { hasBit } from '../../../base/index.js';
import type { DriverInfo } from '../../../block/index.js';
import type { Qcow2Header } from './header.js';
import { Autoclear, Compatible, ExtensionType, Incompatible } from './layout.js';

/** Facts from the header alone; no other file is looked at. */
export function infoOf(header: Qcow2Header): DriverInfo {
  const { fields, geometry } = header;
  const has = (bit: number): boolean => hasBit(fields.incompatibleFeatures, bit);
  const encrypted = fields.cryptMethod !== 0;
  const info = {
    clusterSize: geometry.clusterSize,
    dirty: has(Incompatible.dirty),
    corrupt: has(Incompatible.corrupt),
    specific: { type: 'qcow2', data: specificData(header) },
  };
  return encrypted ? { ...info, encrypted } : info;
}

function specificData(header: Qcow2Header): Record<string, unknown> {
  const { fields, geometry } = header;
  const has = (bit: number): boolean => hasBit(fields.incompatibleFeatures, bit);
  const data: Record<string, unknown> = {
    compat: fields.version === 2 ? '0.10' : '1.1',
    'compression-type': fields.compressionType === 1 ? 'zstd' : 'zlib',
  };
  if (fields.version >= 3) {
    data['lazy-refcounts'] = hasBit(fields.compatibleFeatures, Compatible.lazyRefcounts);
  }
  data['refcount-bits'] = geometry.refcountBits;
  if (fields.version >= 3) {
    data['corrupt'] = has(Incompatible.corrupt);
    data['extended-l2'] = has(Incompatible.extendedL2);
  }
  if (has(Incompatible.externalDataFile)) {
    const name = header.extensions.find(({ type }) => type === ExtensionType.dataFile);
    if (name !== undefined) data['data-file'] = Buffer.from(name.data).toString('utf8');
    data['data-file-raw'] = hasBit(fields.autoclearFeatures, Autoclear.rawExternalData);
  }
  if (fields.cryptMethod !== 0) {
    data['encrypt'] = { format: fields.cryptMethod === 2 ? 'luks' : 'aes' };
  }
  return data;
}
