// SPDX-License-Identifier: Apache-2.0
export * from './bitmap/index.js';
export * from './block-status.js';
export { UNNAMED_USER, type Child, type EdgeParent, type EdgeUser } from './child.js';
export * from './driver.js';
export type * from './extent.js';
export type * from './graph-api.js';
export { createGraph, type GraphParts } from './graph.js';
export { infoBelow } from './inherited-info.js';
export type * from './node.js';
export { creationPath, parseFilename, resolveBackingName } from './open/filename.js';
export { looseFlag, looseNumber } from './open/loose-options.js';
export { hasNamedBacking, headerName } from './open/node-filename.js';
export { protocolOf } from './open/protocol-of.js';
export * from './users/op-blockers.js';
export * from './registry.js';
export * from './request.js';
export type * from './snapshot-view.js';
export * from './transaction.js';
