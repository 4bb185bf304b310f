// SPDX-License-Identifier: Apache-2.0
export { checkImage } from './check-image.js';
export type { RepairRequest } from './check-image.js';
export { L2Tables } from './l2-tables.js';
