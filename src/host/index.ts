// SPDX-License-Identifier: Apache-2.0
export * from './buffer-pool.js';
export * from './char-files.js';
export * from './default-host.js';
export { readDescriptor, writeDescriptor } from './descriptor-io.js';
export * from './file-locks.js';
export type * from './host.js';
export { type NativeAddon, nativeAddon } from './native/addon.js';
export { packageFile } from './package-root.js';
export { CrashDisk, type PowerLossChoice, type UnsyncedChange } from './simulated/crash-disk.js';
export type { HostFault, HostOperation } from './simulated/fault-plan.js';
export { MemoryHost, type MemoryHostOptions } from './simulated/memory-host.js';
export * from './sockets.js';
export * from './worker-pool.js';
