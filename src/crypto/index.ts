// SPDX-License-Identifier: Apache-2.0
export * from './derivation/index.js';
export * from './names.js';
export * from './secret.js';
export * from './sector-cipher.js';
