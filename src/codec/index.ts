// SPDX-License-Identifier: Apache-2.0
export * from './cluster.js';
export * from './deflate.js';
export * from './zero-scan.js';
export { loadZstd, unzstdCluster, zstdCluster } from './zstd.js';
