// SPDX-License-Identifier: Apache-2.0
// The qcow2 format driver: versions 2 and 3, read and write.

import { ChildRole, defineDriver } from '../../../block/index.js';
import { createQcow2 } from './create/index.js';
import { locateCryptHeader } from './encryption/index.js';
import { QCOW2_MAGIC } from './layout.js';
import { measureQcow2 } from './measure.js';
import type { MeasureOptions } from './measure.js';
import { openQcow2 } from './open.js';
import type { Qcow2CreateOptions, Qcow2Options } from './options.js';
import { joinOptions } from './policies.js';
import { inspectHeader } from './structures.js';

export const qcow2Driver = defineDriver<Qcow2Options>({
  name: 'qcow2',
  kind: 'format',
  supports: {
    read: 'native',
    write: 'native',
    writeZeroes: 'native',
    discard: 'native',
    flush: 'native',
    blockStatus: 'native',
    truncate: 'native',
    planExtents: 'native',
    reserve: 'native',
    compressedWrite: 'native',
    changeBacking: 'native',
    check: 'native',
  },
  children: {
    file: {
      role: ChildRole.data | ChildRole.metadata | ChildRole.primary,
      required: true,
    },
    'data-file': { role: ChildRole.data, required: false },
    backing: { role: ChildRole.cow, required: false },
  },
  strongOptions: ['encrypt.key-secret'],
  joinOptions,
  reopenOptions: [
    'lazy-refcounts',
    'pass-discard-request',
    'pass-discard-snapshot',
    'pass-discard-other',
    'overlap-check',
    'cache-size',
    'l2-cache-size',
    'l2-cache-entry-size',
    'refcount-cache-size',
    'cache-clean-interval',
  ],
  changeableOptions: ['encrypt'],
  probe(head) {
    if (head.length < 8) return 0;
    const view = new DataView(head.buffer, head.byteOffset, head.byteLength);
    return view.getUint32(0) === QCOW2_MAGIC && view.getUint32(4) >= 2 ? 100 : 0;
  },
  open: openQcow2,
  create: (context, options) => createQcow2(context, options as unknown as Qcow2CreateOptions),
  measure: (options, source, context) =>
    measureQcow2(options as unknown as MeasureOptions, source, context),
  async locateEncryptionHeader(file) {
    return locateCryptHeader(await inspectHeader(file));
  },
});
