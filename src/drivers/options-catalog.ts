// SPDX-License-Identifier: Apache-2.0
// Names of all drivers and the schema of their options; pure data.
//
// engine/catalog.ts has a loader for each name, or does not build.

import { blkdebugOptions } from './filters/blkdebug/options.js';
import { blklogwritesOptions } from './filters/blklogwrites/options.js';
import { blkverifyOptions } from './filters/blkverify/options.js';
import { compressOptions } from './filters/compress/options.js';
import { copyBeforeWriteOptions } from './filters/copy-before-write/options.js';
import { copyOnReadOptions } from './filters/copy-on-read/options.js';
import { preallocateOptions } from './filters/preallocate/options.js';
import { quorumOptions } from './filters/quorum/options.js';
import { snapshotAccessOptions } from './filters/snapshot-access/options.js';
import { throttleOptions } from './filters/throttle/options.js';
import { luksAmendOptions, luksCreateOptions, luksOptions } from './formats/luks/options.js';
import { qcow2AmendOptions, qcow2CreateOptions, qcow2Options } from './formats/qcow2/options.js';
import { rawOptions } from './formats/raw/options.js';
import { fileCreateOptions, fileOptions } from './protocols/file/options.js';
import { nullOptions } from './protocols/null-co/options.js';

export const driverOptions = {
  file: fileOptions,
  host_device: fileOptions,
  'null-co': nullOptions,
  'null-aio': nullOptions,
  raw: rawOptions,
  luks: luksOptions,
  qcow2: qcow2Options,
  'copy-before-write': copyBeforeWriteOptions,
  'copy-on-read': copyOnReadOptions,
  'snapshot-access': snapshotAccessOptions,
  throttle: throttleOptions,
  blkdebug: blkdebugOptions,
  blklogwrites: blklogwritesOptions,
  blkverify: blkverifyOptions,
  compress: compressOptions,
  preallocate: preallocateOptions,
  quorum: quorumOptions,
} as const;

/** Drivers that create images. */
export const driverCreateOptions = {
  file: fileCreateOptions,
  qcow2: qcow2CreateOptions,
  luks: luksCreateOptions,
} as const;

/** Drivers whose images can be amended while they are open. */
export const driverAmendOptions = {
  qcow2: qcow2AmendOptions,
  luks: luksAmendOptions,
} as const;
