// SPDX-License-Identifier: Apache-2.0
export { Qcow2Snapshots } from './snapshots.js';
