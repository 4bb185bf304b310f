// SPDX-License-Identifier: Apache-2.0
export * from './assert.js';
export * from './clock.js';
export * from './errors.js';
export * from './limits.js';
export * from './random.js';
export * from './secret-bytes.js';
export * from './settle.js';
export * from './permission.js';
export * from './in-flight.js';
export * from './json.js';
export * from './bitfield.js';
export * from './struct.js';
export * from './turns.js';
export * from './units.js';
