// SPDX-License-Identifier: Apache-2.0
export * from './engine.js';
export { CopySession } from './session.js';
export type { CopyFailure, CopySpec, NodeRef } from './spec.js';
