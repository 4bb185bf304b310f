// SPDX-License-Identifier: Apache-2.0
// Options of `quorum`; pure data.
import { blockdevRef } from '../../../block/options.js';
import { bool, enumeration, int, list, optional, struct } from '../../../schema/index.js';
export const quorumReadPattern = enumeration('QuorumReadPattern', ['quorum', 'fifo']);
export const quorumOptions = struct('BlockdevOptionsQuorum', {
    /** Reads of two children are compared, and a difference fails the request. */
    blkverify: optional(bool),
    children: list(blockdevRef),
    /** Children that must agree, or succeed. */
    'vote-threshold': int,
    /** Children that are outvoted in a read get what won. */
    'rewrite-corrupted': optional(bool),
    /** `fifo` reads from the first child that succeeds, without a vote. */
    'read-pattern': optional(quorumReadPattern),
});
