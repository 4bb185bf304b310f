// SPDX-License-Identifier: Apache-2.0
export * from './buffer-pool.js';
export * from './char-files.js';
export * from './default-host.js';
export { readDescriptor, writeDescriptor } from './descriptor-io.js';
export * from './file-locks.js';
export { nativeAddon } from './native/addon.js';
export { packageFile } from './package-root.js';
export { CrashDisk } from './simulated/crash-disk.js';
export { MemoryHost } from './simulated/memory-host.js';
export * from './sockets.js';
export * from './worker-pool.js';
