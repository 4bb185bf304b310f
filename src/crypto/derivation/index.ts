// SPDX-License-Identifier: Apache-2.0
export { calibrated } from './calibration.js';
export { deriveKey } from './derive.js';
export { type DerivationLimit, limitedDerive } from './limit.js';
export { type Derivation, type DeriveKey, requireHash } from './wish.js';
