// SPDX-License-Identifier: Apache-2.0
export * from './compress.js';
export * from './data-file.js';
export * from './discard.js';
export * from './map.js';
export * from './plan.js';
export * from './preallocate.js';
export * from './read.js';
export * from './reserve.js';
export * from './steps.js';
export * from './vm-state.js';
export * from './write.js';
