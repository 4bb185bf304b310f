// SPDX-License-Identifier: Apache-2.0
export * from './area.js';
export * from './facts.js';
export * from './keyslots.js';
export * from './unlock.js';
