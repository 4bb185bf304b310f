// SPDX-License-Identifier: Apache-2.0
export * from './json-stream.js';
export * from './json-writer.js';
