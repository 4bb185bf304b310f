// SPDX-License-Identifier: Apache-2.0
// Options of the null-co driver. Pure data.
import { bool, optional, struct, uint } from '../../../schema/index.js';
export const nullOptions = struct('BlockdevOptionsNull', {
    /** Bytes; 1 GiB unless given. */
    size: optional(uint),
    'latency-ns': optional(uint),
    'read-zeroes': optional(bool),
});
