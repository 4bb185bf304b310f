// SPDX-License-Identifier: Apache-2.0
// Driver `luks`: the encrypted payload behind a LUKS version 1 header.

import { ChildRole, defineDriver } from '../../../block/index.js';
import { isLuks1 } from '../../../crypto/luks/index.js';
import { createLuks } from './create.js';
import { measureLuks } from './measure.js';
import { openLuks } from './open.js';
import type { LuksCreateOptions, LuksOptions } from './options.js';

export const luksDriver = defineDriver<LuksOptions>({
  name: 'luks',
  kind: 'format',
  supports: {
    read: 'native',
    write: 'native',
    writeZeroes: 'emulate',
    discard: 'none',
    flush: 'pass',
    blockStatus: 'native',
    truncate: 'native',
    planExtents: 'native',
    reserve: 'native',
    compressedWrite: 'none',
    changeBacking: 'none',
    check: 'none',
  },
  children: {
    file: {
      role: ChildRole.data | ChildRole.metadata | ChildRole.primary,
      required: true,
      permissions: 'own',
    },
    header: { role: ChildRole.metadata, required: false, permissions: 'own' },
  },
  strongOptions: ['key-secret', 'header'],
  reopenOptions: [],
  probe: (head) => (isLuks1(head) ? 100 : 0),
  open: openLuks,
  create: (context, options) => createLuks(context, options as LuksCreateOptions),
  measure: (options, source, context) => measureLuks(options, source, context ?? {}),
});
