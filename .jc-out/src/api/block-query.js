// SPDX-License-Identifier: Apache-2.0
// Queries of devices, of which there are none, and of what was done on nodes.
import { driverOptions } from '../drivers/options-catalog.js';
import { bool, command, deferred, enumeration, list, number, optional, str, struct, uint, union, } from '../schema/index.js';
import { blockDeviceInfo } from './node-info.js';
export const ioStatus = enumeration('BlockDeviceIoStatus', ['ok', 'failed', 'nospace']);
export const queryBlock = command({
    name: 'query-block',
    since: '0.14',
    doc: 'All devices; nodes without one are listed by query-named-block-nodes.',
    returns: list(struct('BlockInfo', {
        device: str,
        qdev: optional(str),
        type: str,
        removable: bool,
        locked: bool,
        inserted: optional(blockDeviceInfo),
        tray_open: optional(bool),
        'io-status': optional(ioStatus),
    })),
});
const LATENCIES = ['rd', 'wr', 'flush'].flatMap((operation) => ['min', 'max', 'avg'].map((what) => `${what}_${operation}_latency_ns`));
const timedStats = struct('BlockDeviceTimedStats', {
    interval_length: uint,
    ...Object.fromEntries(LATENCIES.map((name) => [name, uint])),
    avg_rd_queue_depth: number,
    avg_wr_queue_depth: number,
});
const latencyHistogram = struct('BlockLatencyHistogramInfo', {
    boundaries: list(uint),
    bins: list(uint),
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
    idle_time_ns: optional(uint),
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
    timed_stats: list(timedStats),
    rd_latency_histogram: optional(latencyHistogram),
    wr_latency_histogram: optional(latencyHistogram),
    flush_latency_histogram: optional(latencyHistogram),
});
const fileStats = struct('BlockStatsSpecificFile', {
    'discard-nb-ok': uint,
    'discard-nb-failed': uint,
    'discard-bytes-ok': uint,
});
function specificBranches() {
    const branches = {};
    for (const name of Object.keys(driverOptions))
        branches[name] = null;
    return { ...branches, file: fileStats, host_device: fileStats };
}
const blockStatsSpecific = union('BlockStatsSpecific', {
    discriminator: 'driver',
    tagName: 'BlockdevDriver',
    branches: specificBranches,
});
export const blockStats = deferred('BlockStats');
blockStats.define(struct('BlockStats', {
    device: optional(str),
    qdev: optional(str),
    'node-name': optional(str),
    stats: blockDeviceStats,
    'driver-specific': optional(blockStatsSpecific),
    parent: optional(blockStats),
    backing: optional(blockStats),
}));
export const queryBlockstats = command({
    name: 'query-blockstats',
    since: '0.14',
    doc: 'What devices did; with `query-nodes`, how far every node was written.',
    args: { 'query-nodes': optional(bool) },
    returns: list(blockStats),
});
