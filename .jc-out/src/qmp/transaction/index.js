// SPDX-License-Identifier: Apache-2.0
export { runAction, runTransaction } from './run.js';
export { findNode } from './snapshot-actions.js';
