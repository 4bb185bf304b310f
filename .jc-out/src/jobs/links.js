// SPDX-License-Identifier: Apache-2.0
// Backing links as jobs need them: images found by the file they are in, overlays of a node, and
// whether a header can take the link that a job is going to write.
import { BlockError, IMAGE_LIMITS } from '../base/index.js';
import { ChildRole, hasNamedBacking } from '../block/index.js';
import { backingOf, skipFilters } from '../block/copy/index.js';
/** The image below `top` that is in the file; null when there is none. */
export function findByFile(top, file) {
    for (let node = backingOf(top); node !== null; node = backingOf(node)) {
        const storing = skipFilters(node);
        if (storing.filename === file)
            return storing;
    }
    // A header may spell the same file in another way than it was opened with.
    for (let node = top; node !== null; node = backingOf(node)) {
        const below = backingOf(node);
        const overlay = skipFilters(node);
        if (below === null || !hasNamedBacking(overlay))
            continue;
        if (overlay.backingLink()?.file === file)
            return skipFilters(below);
    }
    return null;
}
/** Throws where both store the same. */
export function requireOther(source, target) {
    if (skipFilters(source) !== skipFilters(target))
        return;
    throw new BlockError('invalid-option', "Can't mirror node into itself");
}
/** Nodes whose header names what the node stores, looking up through filters. */
export function overlaysOf(node) {
    const overlays = [];
    const above = [node];
    for (const each of above) {
        for (const { parent, role } of each.parents) {
            if (parent.node === null)
                continue;
            if ((role & ChildRole.cow) !== 0)
                overlays.push(parent.node);
            else if ((role & ChildRole.filtered) !== 0)
                above.push(parent.node);
        }
    }
    return overlays;
}
/** Throws unless the overlay's header can name the base, or the text given for it. */
export function requireLink(overlay, base, given) {
    const { driver } = skipFilters(overlay);
    if (driver.supports.changeBacking !== 'native') {
        throw new BlockError('unsupported', `Driver '${driver.name}' of node '${overlay.name}' has no backing link to change`, { node: overlay.name });
    }
    if (base === null || given !== null)
        return;
    const bytes = Buffer.byteLength(skipFilters(base).filename, 'utf8');
    if (bytes > 0 && bytes <= IMAGE_LIMITS.backingNameBytes)
        return;
    throw new BlockError('invalid-option', `Node '${base.name}' has no file name that fits into '${overlay.name}' (${bytes} bytes): ` +
        "give 'backing-file'", { node: base.name });
}
