// SPDX-License-Identifier: Apache-2.0
// What query-named-block-nodes says about one node.
import { IMAGE_LIMITS } from '../../base/index.js';
import { headerName, infoBelow } from '../../block/index.js';
import { storedBytes } from '../../engine/index.js';
import { describeBitmaps } from './bitmap.js';
/** The node below a format or filter that stores its bytes in a host file, or null. */
function storageOf(node) {
    let current = node;
    for (let depth = 0; current !== null && depth < IMAGE_LIMITS.backingChainDepth; depth += 1) {
        if (current.driverNode.hostFile !== undefined)
            return current;
        current = current.primary ?? current.filtered;
    }
    return null;
}
function backingDepth(node) {
    let depth = 0;
    for (let below = node.backing; below !== null; below = below.backing)
        depth += 1;
    return depth;
}
async function storedSizes({ graph }) {
    const sizes = new Map();
    for (const node of graph.nodes) {
        // What is closed meanwhile is not asked for any more.
        if (graph.find(node.name) !== node)
            continue;
        sizes.set(node, await storedBytes(graph.host, node));
    }
    return sizes;
}
function imageInfo(node, sizes, nested) {
    const { info } = node;
    const { clusterSize, dirty: told } = infoBelow(node);
    const link = node.backingLink();
    const format = link?.format ?? null;
    const full = link === null ? null : headerName(node, link.file);
    const storage = storageOf(node);
    const dirty = told === undefined && storage !== null ? false : (told ?? undefined);
    const backing = nested ? node.backing : null;
    return {
        'virtual-size': node.length,
        filename: node.filename,
        format: node.driver.name,
        'actual-size': sizes.get(node) ?? 0,
        ...(clusterSize === undefined ? {} : { 'cluster-size': clusterSize }),
        ...(info.encrypted === true ? { encrypted: true } : {}),
        ...(info.specific === undefined ? {} : { 'format-specific': info.specific }),
        ...(link === null ? {} : { 'backing-filename': link.file }),
        ...(format === null ? {} : { 'backing-filename-format': format }),
        ...(full === null ? {} : { 'full-backing-filename': full }),
        ...(dirty === undefined ? {} : { 'dirty-flag': dirty }),
        ...(backing === null ? {} : { 'backing-image': imageInfo(backing, sizes, true) }),
    };
}
/** All nodes, oldest last; with `flat` without what lies below each. */
export async function describeNodes(engine, flat) {
    const sizes = await storedSizes(engine);
    // Then in one turn: a job that ends closes nodes.
    return [...engine.graph.nodes]
        .reverse()
        .map((node) => describeNode(node, { sizes, flat, threshold: engine.writeThresholds.of(node) }));
}
function describeNode(node, { sizes, flat, threshold }) {
    const cache = (node.options['cache'] ?? {});
    const detect = node.options['detect-zeroes'];
    const bitmaps = describeBitmaps(node);
    return {
        'node-name': node.name,
        drv: node.driver.name,
        file: node.filename,
        ...(node.backing === null ? {} : { backing_file: node.backing.filename }),
        backing_file_depth: flat ? 0 : backingDepth(node),
        ro: node.readOnly,
        encrypted: node.info.encrypted ?? false,
        detect_zeroes: detect ?? 'off',
        ...NO_THROTTLING,
        image: imageInfo(node, sizes, !flat),
        cache: {
            writeback: true,
            direct: cache.direct ?? false,
            'no-flush': cache['no-flush'] ?? false,
        },
        write_threshold: threshold,
        ...(bitmaps.length === 0 ? {} : { 'dirty-bitmaps': bitmaps }),
    };
}
const NO_THROTTLING = {
    bps: 0,
    bps_rd: 0,
    bps_wr: 0,
    iops: 0,
    iops_rd: 0,
    iops_wr: 0,
};
