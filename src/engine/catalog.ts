// SPDX-License-Identifier: Apache-2.0
// Every driver by name, and how its code is loaded: when it is first used.
//
// The names are those of the options catalog; one without a loader here does not build.

import type { Driver } from '../block/index.js';
import type { driverOptions } from '../drivers/options-catalog.js';

/** A registry opens drivers with options that were validated by the driver's own schema. */
function erased<Options>(driver: Driver<Options>): Driver {
  return driver as unknown as Driver;
}

export type DriverName = keyof typeof driverOptions;

/** Filters that only jobs make: they have no options. */
type JobFilterName = 'commit_top' | 'mirror_top';

export const DRIVER_LOADERS: {
  readonly [N in DriverName | JobFilterName]: () => Promise<Driver>;
} = {
  file: async () => erased((await import('../drivers/protocols/file/index.js')).fileDriver),
  host_device: async () =>
    erased((await import('../drivers/protocols/file/index.js')).hostDeviceDriver),
  'null-co': async () => erased((await import('../drivers/protocols/null-co/index.js')).nullDriver),
  'null-aio': async () =>
    erased((await import('../drivers/protocols/null-co/index.js')).nullAioDriver),
  raw: async () => erased((await import('../drivers/formats/raw/index.js')).rawDriver),
  luks: async () => erased((await import('../drivers/formats/luks/index.js')).luksDriver),
  qcow2: async () => erased((await import('../drivers/formats/qcow2/index.js')).qcow2Driver),
  'copy-before-write': async () =>
    erased((await import('../drivers/filters/copy-before-write/index.js')).copyBeforeWrite),
  'copy-on-read': async () =>
    erased((await import('../drivers/filters/copy-on-read/index.js')).copyOnRead),
  'snapshot-access': async () =>
    erased((await import('../drivers/filters/snapshot-access/index.js')).snapshotAccess),
  throttle: async () => erased((await import('../drivers/filters/throttle/index.js')).throttle),
  blkdebug: async () => erased((await import('../drivers/filters/blkdebug/index.js')).blkdebug),
  blklogwrites: async () =>
    erased((await import('../drivers/filters/blklogwrites/index.js')).blklogwrites),
  blkverify: async () =>
    erased((await import('../drivers/filters/blkverify/index.js')).blkverify),
  commit_top: async () =>
    erased((await import('../drivers/filters/commit-top/index.js')).commitTop),
  mirror_top: async () =>
    erased((await import('../drivers/filters/mirror-top/index.js')).mirrorTop),
  preallocate: async () =>
    erased((await import('../drivers/filters/preallocate/index.js')).preallocate),
  quorum: async () => erased((await import('../drivers/filters/quorum/index.js')).quorum),
  compress: async () => erased((await import('../drivers/filters/compress/index.js')).compress),
};
