// SPDX-License-Identifier: Apache-2.0
export { rebuildRefcounts } from './rebuild.js';
export { ReferenceCounts } from './references.js';
export { checkImage } from './check-image.js';
export type { RepairRequest } from './check-image.js';
export { L2Tables } from './l2-tables.js';
