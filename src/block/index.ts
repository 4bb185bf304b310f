// SPDX-License-Identifier: Apache-2.0
export type * from './block-status.js';
export type * from './child.js';
export * from './driver.js';
export type * from './extent.js';
export type * from './graph-api.js';
export type * from './node.js';
export * from './request.js';
