// SPDX-License-Identifier: Apache-2.0
export { checkPlainProperty, limitsOf, UNLIMITED, withLimits } from './config.js';
export type { RateLimit, ThrottleConfig } from './config.js';
export { ThrottleGroup } from './group.js';
export type { Direction, ThrottleMember } from './group.js';
