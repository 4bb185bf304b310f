// SPDX-License-Identifier: Apache-2.0
export * from './declare.js';
export * from './types.js';
