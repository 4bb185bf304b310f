// SPDX-License-Identifier: Apache-2.0
export * from './file-locks.js';
export type * from './host.js';
export { CrashDisk, type PowerLossChoice, type UnsyncedChange } from './simulated/crash-disk.js';
export type { HostFault, HostOperation } from './simulated/fault-plan.js';
export { MemoryHost, type MemoryHostOptions } from './simulated/memory-host.js';
export { readDescriptor, writeDescriptor } from './descriptor-io.js';
export { createWorkerPool, type WorkerPool, type WorkerPoolOptions } from './worker-pool.js';
