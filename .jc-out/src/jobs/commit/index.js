// SPDX-License-Identifier: Apache-2.0
// `block-commit`: checks the arguments in the reference's order and starts the job: a copy down
// for images below the active layer, a mirror into the base for the active layer itself.
import { BlockError, Permission } from '../../base/index.js';
import { infoBelow, requireOperation } from '../../block/index.js';
import { backingOf, nodesOfView, skipFilters } from '../../block/copy/index.js';
import { findByFile, overlaysOf, requireLink, requireOther } from '../links.js';
import { MirrorWork } from '../mirror-work.js';
import { requireFilterName, startWork } from '../start.js';
import { CommitWork } from './commit-work.js';
export { commitOptions } from './options.js';
const DEFAULT_GRANULARITY = 65_536;
const LEAST_GRANULARITY = 4096;
export async function startCommit(registry, args) {
    const ends = findEnds(registry, args);
    const active = whyActive(ends);
    if (active !== null && args['backing-file'] !== undefined) {
        throw new BlockError('invalid-option', `'backing-file' specified, but 'top' ${active}`);
    }
    return active === null
        ? startBelow(registry, args, ends)
        : startActive(registry, args, ends);
}
function setupOf(args) {
    return {
        id: args['job-id'] ?? '',
        type: 'commit',
        blockJob: true,
        autoFinalize: args['auto-finalize'] ?? true,
        autoDismiss: args['auto-dismiss'] ?? true,
    };
}
async function startBelow(registry, args, { device, top, base, layers }) {
    registry.requireFreeId(args['job-id'] ?? '');
    const backingFile = args['backing-file'] ?? null;
    for (const overlay of overlaysOf(top))
        requireLink(overlay, base, backingFile);
    const work = new CommitWork(registry, {
        device,
        top,
        base,
        layers,
        backingFile,
        filterName: args['filter-node-name'] ?? null,
        onError: args['on-error'] ?? 'report',
    });
    return startWork(registry, work, {
        setup: setupOf(args),
        speed: args.speed ?? 0,
    });
}
async function startActive(registry, args, { top, base, layers }) {
    const filterName = args['filter-node-name'] ?? null;
    requireOther(top, base);
    if (filterName !== null)
        requireFilterName(registry, filterName, '');
    registry.requireFreeId(args['job-id'] ?? '');
    const cluster = infoBelow(base).clusterSize ?? DEFAULT_GRANULARITY;
    const onError = args['on-error'] ?? 'report';
    const work = new MirrorWork(registry, {
        type: 'commit',
        source: top,
        target: base,
        sync: 'top',
        base,
        between: layers.slice(1),
        granularity: Math.min(DEFAULT_GRANULARITY, Math.max(LEAST_GRANULARITY, cluster)),
        bufferBytes: 0,
        zeroTarget: false,
        blocking: false,
        unmap: true,
        filterName,
        replaces: null,
        backing: 'as-it-is',
        ownsTarget: false,
        onSourceError: onError,
        onTargetError: onError,
    });
    await work.insertFilter();
    return startWork(registry, work, {
        setup: setupOf(args),
        speed: args.speed ?? 0,
    });
}
/** Why the top is written to while the job runs, in words; null when it is not. */
function whyActive({ device, top }) {
    if (skipFilters(top) === skipFilters(device))
        return 'is the active layer';
    for (const edge of top.parents) {
        if ((edge.permissions.taken & Permission.write) !== 0)
            return 'has a writer on it';
    }
    return null;
}
function findEnds(registry, args) {
    if (registry.graph.find(args.device) === null) {
        throw new BlockError('device-not-found', `Device '${args.device}' not found`);
    }
    const device = registry.rootNode(args.device);
    requireOperation(device, 'commit-source');
    const top = findTop(registry, device, args);
    const base = findBase(registry, top, args);
    if (top === base) {
        throw new BlockError('invalid-option', 'cannot commit an image into itself');
    }
    const layers = [];
    for (const node of nodesOfView(top)) {
        requireOperation(node, 'commit-target');
        if (node === base)
            break;
        layers.push(node);
    }
    return { device, top, base, layers };
}
function exclude(args, end) {
    if (args[end] === undefined || args[`${end}-node`] === undefined)
        return;
    throw new BlockError('invalid-option', `'${end}-node' and '${end}' are mutually exclusive`);
}
function findTop(registry, device, args) {
    exclude(args, 'top');
    const name = args['top-node'];
    if (name !== undefined)
        return findNode(registry, device, name);
    if (args.top === undefined || args.top === device.filename)
        return device;
    const top = findByFile(device, args.top);
    if (top !== null)
        return top;
    throw new BlockError('not-found', `Top image file ${args.top} not found`);
}
/** The lowest image unless it is named. */
function findBase(registry, top, args) {
    exclude(args, 'base');
    const name = args['base-node'];
    if (name !== undefined)
        return findNode(registry, top, name);
    if (args.base !== undefined) {
        const base = findByFile(top, args.base);
        if (base !== null)
            return base;
        throw new BlockError('not-found', `Can't find '${args.base}' in the backing chain`);
    }
    let lowest = skipFilters(top);
    for (let node = backingOf(top); node !== null; node = backingOf(node)) {
        lowest = skipFilters(node);
    }
    return lowest;
}
function findNode(registry, from, name) {
    const wanted = registry.node(name, 'node-name');
    for (const node of nodesOfView(from))
        if (node === wanted)
            return node;
    throw new BlockError('invalid-option', `'${name}' is not in this backing file chain`);
}
