// SPDX-License-Identifier: Apache-2.0
export * from './bitmap/index.js';
export * from './block-status.js';
export { UNNAMED_USER } from './child.js';
export * from './driver.js';
export { createGraph } from './graph.js';
export { infoBelow } from './inherited-info.js';
export { creationPath, parseFilename, resolveBackingName } from './open/filename.js';
export { looseFlag, looseNumber } from './open/loose-options.js';
export { hasNamedBacking, headerName } from './open/node-filename.js';
export { protocolOf } from './open/protocol-of.js';
export * from './users/op-blockers.js';
export * from './registry.js';
export * from './request.js';
export * from './transaction.js';
