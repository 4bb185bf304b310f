// SPDX-License-Identifier: Apache-2.0
export * from './amend.js';
export * from './backup.js';
export * from './facts.js';
export * from './format.js';
export * from './header.js';
export * from './header-in-use.js';
export * from './keyslots.js';
export * from './layout.js';
export * from './restore.js';
export * from './slot-changes.js';
export * from './wish.js';
