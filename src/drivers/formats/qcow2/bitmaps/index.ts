// SPDX-License-Identifier: Apache-2.0
export * from './directory.js';
export * from './persistent.js';
export * from './tables.js';
