// SPDX-License-Identifier: Apache-2.0
// What a mirror is to do, and its last step: the target takes the place of the source.
//
// The target gets its backing file first, then the users move in one turn of the graph. Whoever
// pivots holds the guests meanwhile, and has given up what its own edges and freezes forbid.
import { BlockError, errnoText, must, toBlockError } from '../base/index.js';
import { resolveBackingName } from '../block/index.js';
import { skipFilters } from '../block/copy/index.js';
/** Nodes that read as the source does whatever happens: it and what it filters. */
export function canReplace(source, node) {
    for (let each = source; each !== null; each = each.filtered) {
        if (each === node)
            return true;
    }
    return false;
}
/** The node whose place the target takes; throws when that would change what guests see. */
export function requireReplaceable(graph, plan) {
    const { source, target, replaces } = plan;
    const node = replaces === null ? source : graph.require(replaces);
    if (canReplace(source, node))
        return node;
    throw new BlockError('invalid-state', `Can no longer replace '${node.name}' by '${target.name}', because it can no longer be ` +
        'guaranteed that doing so would not lead to an abrupt change of visible data');
}
/** Gives the users of `node` to the target, those of the job's own filter included. */
export async function takePlace(graph, plan, place) {
    const { source, target } = plan;
    const { node, filter } = place;
    await giveBacking(graph, plan);
    // A target that cannot follow stays as it is.
    await graph.setReadOnly(target, node.readOnly).catch(() => undefined);
    const without = node === source ? [filter] : [];
    await graph.replaceNode({ node, by: target, without });
}
async function giveBacking(graph, plan) {
    const { source, target, backing } = plan;
    if (backing === 'as-it-is')
        return;
    const overlay = skipFilters(target);
    if (backing === 'as-header-says')
        return openBacking(graph, overlay);
    const wanted = backing === 'source' ? source : skipFilters(source).backing;
    if (overlay.backing !== wanted)
        await graph.setBacking(overlay, wanted);
}
async function openBacking(graph, overlay) {
    const link = overlay.backingLink();
    if (link === null || overlay.backing !== null)
        return;
    try {
        // Opened without a backing file it has no plain name of its own; its file has.
        const file = must(overlay.primary, 'an image has a file');
        const path = resolveBackingName(file.filename, link.file);
        const node = await graph.openImage(path, link.format, true);
        try {
            await graph.setBacking(overlay, node);
        }
        finally {
            await graph.close(node);
        }
    }
    catch (error) {
        throw new BlockError('invalid-option', errnoText('EINVAL'), { cause: toBlockError(error) });
    }
}
