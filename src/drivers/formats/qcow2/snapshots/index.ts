// SPDX-License-Identifier: Apache-2.0
export * from './inactive-tables.js';
export { Qcow2Snapshots } from './snapshots.js';
