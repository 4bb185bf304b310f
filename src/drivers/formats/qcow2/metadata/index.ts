// SPDX-License-Identifier: Apache-2.0
export * from './alloc.js';
export * from './contracts.js';
export * from './data-cipher.js';
export * from './flush.js';
export * from './grow.js';
export * from './header-doubt.js';
export * from './image.js';
export * from './leases.js';
export * from './policies.js';
export * from './refcounts.js';
export * from './shrink.js';
export * from './store.js';
export * from './switch-header.js';
export * from './table-cache.js';
