// SPDX-License-Identifier: Apache-2.0
export { createQcow2 } from './create.js';
export { emptyImage } from './empty-image.js';
export { newEncryption } from './encryption.js';
export { layOut } from './placement.js';
