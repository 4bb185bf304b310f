// SPDX-License-Identifier: Apache-2.0
export * from './cipher-table.js';
export * from './derivation/index.js';
export { vectorKeyOf, vectorNumber } from './initial-vector.js';
export * from './names.js';
export * from './native-sectors.js';
export * from './secret.js';
export * from './sector-cipher.js';
