// SPDX-License-Identifier: Apache-2.0
// Driver `file`: the bytes of a regular file of the host, locked by permission bytes.

import { defineDriver } from '../../../block/index.js';
import { createFile } from './create.js';
import { openFile, type FileNodeOptions } from './open.js';

export const fileDriver = defineDriver<FileNodeOptions>({
  name: 'file',
  kind: 'protocol',
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
    compressedWrite: 'none',
    changeBacking: 'none',
    check: 'none',
  },
  children: {},
  reopenOptions: [],
  open: openFile,
  create: createFile,
});
