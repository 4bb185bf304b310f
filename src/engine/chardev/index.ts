// SPDX-License-Identifier: Apache-2.0
export type { Chardev, CharStreams, CharUser } from './chardev.js';
export { CHARDEV_KINDS, ChardevRegistry, failedToAdd } from './registry.js';
