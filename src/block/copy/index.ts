// SPDX-License-Identifier: Apache-2.0
export * from './before-write.js';
export * from './chain.js';
export * from './compare.js';
export * from './copy-bitmap.js';
export * from './engine/index.js';
export * from './copy-on-read.js';
export { readView } from './graph-copy.js';
export * from './image-copy.js';
export * from './mirror-state.js';
export { createLanes, FairLanes, inProcessLanes } from './lane-executor.js';
export type { LaneBatch, LaneExecutor } from './lane-executor.js';
export type { Span } from './lane-plan.js';
export * from './lane-task.js';
export * from './point-in-time.js';
export * from './range-locks.js';
export * from './rate-limit.js';
export * from './view-runs.js';
