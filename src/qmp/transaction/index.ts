// SPDX-License-Identifier: Apache-2.0
export { runTransaction } from './run.js';
export { findNode } from './snapshot-actions.js';
