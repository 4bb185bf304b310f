// SPDX-License-Identifier: Apache-2.0
export * from './declare.js';
export * from './document.js';
export * from './introspect.js';
export * from './keyval.js';
export { parseSizeText } from './keyval-values.js';
export * from './policy.js';
export * from './types.js';
export * from './validate.js';
