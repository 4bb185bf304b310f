// SPDX-License-Identifier: Apache-2.0
// Queries of devices, of which there are none, and of what was done on nodes.

import { any, bool, command, list, optional, str, struct, uint } from '../schema/index.js';
import type { Type } from '../schema/index.js';

export const queryBlock = command({
  name: 'query-block',
  since: '0.14',
  doc: 'All devices; nodes without one are listed by query-named-block-nodes.',
  returns: list(
    struct('BlockInfo', { device: str, type: str, removable: bool, locked: bool }),
  ),
});

export const blockDeviceStats = struct('BlockDeviceStats', {
  rd_bytes: uint,
  wr_bytes: uint,
  unmap_bytes: uint,
  rd_operations: uint,
  wr_operations: uint,
  flush_operations: uint,
  unmap_operations: uint,
  rd_total_time_ns: uint,
  wr_total_time_ns: uint,
  flush_total_time_ns: uint,
  unmap_total_time_ns: uint,
  wr_highest_offset: uint,
  rd_merged: uint,
  wr_merged: uint,
  unmap_merged: uint,
  failed_rd_operations: uint,
  failed_wr_operations: uint,
  failed_flush_operations: uint,
  failed_unmap_operations: uint,
  invalid_rd_operations: uint,
  invalid_wr_operations: uint,
  invalid_flush_operations: uint,
  invalid_unmap_operations: uint,
  account_invalid: bool,
  account_failed: bool,
  timed_stats: list(any),
});

const statsMembers = {
  'node-name': optional(str),
  stats: blockDeviceStats,
  'driver-specific': optional(any),
} as const;

export interface BlockStatsValue {
  readonly 'node-name'?: string;
  readonly stats: Readonly<Record<string, unknown>>;
  readonly 'driver-specific'?: unknown;
  /** Of the node that stores this one's data. */
  readonly parent?: unknown;
}

export const blockStats: Type<BlockStatsValue> = struct('BlockStats', {
  ...statsMembers,
  parent: optional(any),
}) as Type<BlockStatsValue>;

export const queryBlockstats = command({
  name: 'query-blockstats',
  since: '0.14',
  doc: 'What devices did; with `query-nodes`, how far every node was written.',
  args: { 'query-nodes': optional(bool) },
  returns: list(blockStats),
});
