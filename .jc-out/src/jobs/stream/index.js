// SPDX-License-Identifier: Apache-2.0
// `block-stream`: checks the arguments, freezes the chain, puts the copy-on-read filter in and
// starts the job. A read-only top is read-write while the job lives. What is refused before the
// job exists sends no event.
import { BlockError } from '../../base/index.js';
import { requireOperation } from '../../block/index.js';
import { backingOf, nodesOfView, skipFilters } from '../../block/copy/index.js';
import { findByFile, requireLink } from '../links.js';
import { requireFilterName, startWork } from '../start.js';
import { StreamWork, storingLayers } from './stream-work.js';
export { streamOptions } from './options.js';
export async function startStream(registry, args) {
    const plan = planStream(registry, args);
    const id = args['job-id'] ?? '';
    registry.requireFreeId(id);
    const work = new StreamWork(registry, plan);
    if (plan.top.readOnly)
        await work.makeWritable();
    await work.insertFilter(args['filter-node-name'] ?? null);
    const job = await startWork(registry, work, {
        setup: {
            id,
            type: 'stream',
            blockJob: true,
            autoFinalize: args['auto-finalize'] ?? true,
            autoDismiss: args['auto-dismiss'] ?? true,
        },
        speed: args.speed ?? 0,
    });
    // With nothing to copy the reference is through before it answers.
    if (storingLayers(plan.layers) === 1)
        await job.restsOrEnds();
    return job;
}
function planStream(registry, args) {
    requireOneBase(args);
    const top = registry.node(args.device);
    const base = findBase(registry, top, args);
    const layers = layersAbove(top, base);
    for (const node of layers)
        requireOperation(node, 'stream');
    const backingFile = args['backing-file'];
    // Named by `bottom`, the base does not count: the reference refuses a string then, too.
    if (backingFile !== undefined && (base === null || args.bottom !== undefined)) {
        throw new BlockError('invalid-option', 'backing file specified, but streaming the entire chain');
    }
    if (base !== null && skipFilters(base) === skipFilters(top)) {
        const text = `'${base.name}' is not in the backing chain of '${top.name}'`;
        throw new BlockError('invalid-option', text);
    }
    requireFilterName(registry, args['filter-node-name']);
    // The new link must be known before anything is copied.
    if (backingOf(top) !== null) {
        requireLink(top, base, backingFile ?? null);
    }
    return {
        top,
        base,
        layers,
        backingFile: backingFile ?? null,
        onError: args['on-error'] ?? 'report',
    };
}
function requireOneBase(args) {
    const both = (one, other) => {
        if (args[one] === undefined || args[other] === undefined)
            return;
        throw new BlockError('invalid-option', `'${one}' and '${other}' cannot be specified at the same time`);
    };
    both('base', 'base-node');
    both('base', 'bottom');
    both('bottom', 'base-node');
}
/** The first layer that stays below; null when the whole chain is streamed. */
function findBase(registry, top, args) {
    if (args.base !== undefined) {
        const base = findByFile(top, args.base);
        if (base !== null)
            return base;
        throw new BlockError('not-found', `Can't find '${args.base}' in the backing chain`);
    }
    const baseName = args['base-node'];
    if (baseName !== undefined) {
        const base = registry.node(baseName, 'node-name');
        if (base !== top && isInChain(top, base))
            return base;
        throw new BlockError('invalid-option', `Node '${baseName}' is not a backing image of '${args.device}'`);
    }
    if (args.bottom === undefined)
        return null;
    const bottom = registry.node(args.bottom, 'node-name');
    if (bottom.filtered !== null) {
        throw new BlockError('invalid-option', `Node '${args.bottom}' is a filter, use a non-filter node as 'bottom'`);
    }
    if (!isInChain(top, bottom)) {
        throw new BlockError('invalid-option', `Node '${args.bottom}' is not in a chain starting from '${args.device}'`);
    }
    return backingOf(bottom);
}
function isInChain(top, wanted) {
    for (const node of nodesOfView(top))
        if (node === wanted)
            return true;
    return false;
}
/** Nodes from `top` down to `base` (exclusive), filters included. */
function layersAbove(top, base) {
    const layers = [];
    for (const node of nodesOfView(top)) {
        if (node === base)
            break;
        layers.push(node);
    }
    return layers;
}
