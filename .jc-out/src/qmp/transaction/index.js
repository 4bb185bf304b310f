// SPDX-License-Identifier: Apache-2.0
export { runTransaction } from './run.js';
export { findNode, prepareSnapshot, prepareSnapshotSync } from './snapshot-actions.js';
