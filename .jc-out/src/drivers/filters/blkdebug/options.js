// SPDX-License-Identifier: Apache-2.0
// Options of `blkdebug`; pure data.
import { blockdevRef } from '../../../block/options.js';
import { bool, enumeration, int, int32, list, optional, str, struct, } from '../../../schema/index.js';
/** Points of the data path at which rules can act; which are passed is the formats' matter. */
export const blkdebugEvent = enumeration('BlkdebugEvent', [
    'l1_update',
    'l1_grow_alloc_table',
    'l1_grow_write_table',
    'l1_grow_activate_table',
    'l2_load',
    'l2_update',
    'l2_update_compressed',
    'l2_alloc_cow_read',
    'l2_alloc_write',
    'read_aio',
    'read_backing_aio',
    'read_compressed',
    'write_aio',
    'write_compressed',
    'vmstate_load',
    'vmstate_save',
    'cow_read',
    'cow_write',
    'reftable_load',
    'reftable_grow',
    'reftable_update',
    'refblock_load',
    'refblock_update',
    'refblock_update_part',
    'refblock_alloc',
    'refblock_alloc_hookup',
    'refblock_alloc_write',
    'refblock_alloc_write_blocks',
    'refblock_alloc_write_table',
    'refblock_alloc_switch_table',
    'cluster_alloc',
    'cluster_alloc_bytes',
    'cluster_free',
    'flush_to_os',
    'flush_to_disk',
    'pwritev_rmw_head',
    'pwritev_rmw_after_head',
    'pwritev_rmw_tail',
    'pwritev_rmw_after_tail',
    'pwritev',
    'pwritev_zero',
    'pwritev_done',
    'empty_image_prepare',
    'l1_shrink_write_table',
    'l1_shrink_free_l2_clusters',
    'cor_write',
    'cluster_alloc_space',
    'none',
]);
export const blkdebugIoType = enumeration('BlkdebugIOType', [
    'read',
    'write',
    'write-zeroes',
    'discard',
    'flush',
    'block-status',
]);
export const injectErrorOptions = struct('BlkdebugInjectErrorOptions', {
    event: blkdebugEvent,
    /** The rule acts in this state only; 0 = in every one. */
    state: optional(int),
    iotype: optional(blkdebugIoType),
    /** Number as the host counts errors; EIO unless given. */
    errno: optional(int),
    /** Requests that touch this sector of 512 bytes; −1 = all. */
    sector: optional(int),
    once: optional(bool),
    /** Fail before the request gives way to others. */
    immediately: optional(bool),
});
export const setStateOptions = struct('BlkdebugSetStateOptions', {
    event: blkdebugEvent,
    state: optional(int),
    new_state: int,
});
export const blockPermission = enumeration('BlockPermission', [
    'consistent-read',
    'write',
    'write-unchanged',
    'resize',
]);
export const blkdebugOptions = struct('BlockdevOptionsBlkdebug', {
    image: blockdevRef,
    /** A file of rules (config-file.ts), which come before those given here. */
    config: optional(str),
    /** Bytes, as are the limits below. */
    align: optional(int),
    'max-transfer': optional(int32),
    'opt-write-zero': optional(int32),
    'max-write-zero': optional(int32),
    'opt-discard': optional(int32),
    'max-discard': optional(int32),
    'inject-error': optional(list(injectErrorOptions)),
    'set-state': optional(list(setStateOptions)),
    'take-child-perms': optional(list(blockPermission)),
    'unshare-child-perms': optional(list(blockPermission)),
});
