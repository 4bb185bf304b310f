// SPDX-License-Identifier: Apache-2.0
export * from './bitmap/index.js';
export * from './block-status.js';
export type { Child, EdgeParent } from './child.js';
export * from './driver.js';
export type * from './extent.js';
export type * from './graph-api.js';
export { createGraph, type GraphParts } from './graph.js';
export type * from './node.js';
export { creationPath, parseFilename, resolveBackingName } from './open/filename.js';
export { headerName } from './open/node-filename.js';
export * from './registry.js';
export * from './request.js';
export * from './transaction.js';
