// SPDX-License-Identifier: Apache-2.0
export * from './dirty-bitmap.js';
export * from './node-bitmaps.js';
