// SPDX-License-Identifier: Apache-2.0
export { ByteLines, lineText } from './byte-lines.js';
