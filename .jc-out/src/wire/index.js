// SPDX-License-Identifier: Apache-2.0
export { JsonSyntaxError } from './json-parser.js';
export * from './json-stream.js';
export * from './json-writer.js';
