// SPDX-License-Identifier: Apache-2.0
export * from './dirty-bitmap.js';
export * from './hash.js';
export * from './merge.js';
export * from './node-bitmaps.js';
export * from './succession.js';
