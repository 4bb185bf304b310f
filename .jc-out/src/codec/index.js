// SPDX-License-Identifier: Apache-2.0
export * from './deflate.js';
export * from './zero-scan.js';
