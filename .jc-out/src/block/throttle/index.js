// SPDX-License-Identifier: Apache-2.0
export { checkPlainProperty, limitsOf, UNLIMITED, withLimits } from './config.js';
export { ThrottleGroup } from './group.js';
