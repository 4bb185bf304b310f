// SPDX-License-Identifier: Apache-2.0
// query-block and query-blockstats. There are no devices, so lists of devices are empty; of nodes,
// only how far they were written is counted, as in the reference.
import { ChildRole } from '../../block/index.js';
export const blockQueryCommands = {
    'query-block': () => [],
    'query-blockstats': (engine, args) => args['query-nodes'] === true ? [...engine.graph.nodes].map(statsOf) : [],
};
function statsOf(node) {
    const { discards } = node.driverNode;
    const storage = storageOf(node);
    return {
        'node-name': node.name,
        stats: { ...NOTHING_DONE, wr_highest_offset: node.writtenEnd },
        ...(discards === undefined
            ? {}
            : {
                'driver-specific': {
                    driver: node.driver.name,
                    'discard-nb-ok': discards.succeeded,
                    'discard-nb-failed': discards.failed,
                    'discard-bytes-ok': discards.bytes,
                },
            }),
        ...(storage === null ? {} : { parent: statsOf(storage) }),
    };
}
/** The one node that stores what this one holds; null where there are several. */
function storageOf(node) {
    const mask = ChildRole.data | ChildRole.metadata | ChildRole.filtered;
    const storing = [...node.children.values()].filter(({ role }) => (role & mask) !== 0);
    return storing.length === 1 ? (storing[0]?.node ?? null) : null;
}
const NOTHING_DONE = {
    rd_bytes: 0,
    wr_bytes: 0,
    unmap_bytes: 0,
    rd_operations: 0,
    wr_operations: 0,
    flush_operations: 0,
    unmap_operations: 0,
    rd_total_time_ns: 0,
    wr_total_time_ns: 0,
    flush_total_time_ns: 0,
    unmap_total_time_ns: 0,
    wr_highest_offset: 0,
    rd_merged: 0,
    wr_merged: 0,
    unmap_merged: 0,
    failed_rd_operations: 0,
    failed_wr_operations: 0,
    failed_flush_operations: 0,
    failed_unmap_operations: 0,
    invalid_rd_operations: 0,
    invalid_wr_operations: 0,
    invalid_flush_operations: 0,
    invalid_unmap_operations: 0,
    account_invalid: false,
    account_failed: false,
    timed_stats: [],
};
