// SPDX-License-Identifier: Apache-2.0
export * from './file-locks.js';
export type * from './host.js';
