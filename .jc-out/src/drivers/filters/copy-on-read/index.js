// SPDX-License-Identifier: Apache-2.0
// The filter `copy-on-read`: what is read from below the overlay is written into it.
//
// Writes pass. `bottom` names the last layer that is copied from; without it the whole chain is,
// and what no layer has is written as zeroes: an image that was read is whole.
// As long as the filter is there nothing between it and the bottom can be replaced.
// A job gives its own copier, so that its fills and those of readers exclude each other.
import { BlockError, Permission, settle } from '../../../base/index.js';
import { ChildRole, defineDriver } from '../../../block/index.js';
import { backingOf, CopyOnRead, nodesOfView, skipFilters } from '../../../block/copy/index.js';
/** Where an overlay tells no cluster size. */
const DEFAULT_UNIT = 65_536;
export const copyOnRead = defineDriver({
    name: 'copy-on-read',
    kind: 'filter',
    children: { file: { role: ChildRole.filtered | ChildRole.primary, required: true } },
    supports: {
        read: 'native',
        write: 'pass',
        writeZeroes: 'pass',
        discard: 'pass',
        flush: 'pass',
        blockStatus: 'pass',
        truncate: 'pass',
        planExtents: 'none',
        reserve: 'none',
        compressedWrite: 'pass',
        changeBacking: 'none',
        check: 'none',
    },
    openingPermissions: (_, parents) => permissionsOnFile(parents),
    open(context, options) {
        const file = context.child('file');
        if ('copyOnRead' in options) {
            return Promise.resolve(new CopyOnReadNode(file, options.copyOnRead));
        }
        return Promise.resolve(openAlone(context, file, options));
    },
});
function permissionsOnFile({ taken, shared }) {
    const copying = Permission.writeUnchanged;
    return { taken: taken | copying, shared: shared | copying };
}
function openAlone(context, file, options) {
    const bottom = options.bottom === undefined ? null : findBottom(context, options.bottom);
    // Looked up for each request: a snapshot puts another overlay below the filter.
    const overlay = {
        get node() {
            return skipFilters(file.node);
        },
    };
    const copier = new CopyOnRead({
        overlay,
        base: () => (bottom === null ? null : backingOf(bottom)),
        everything: bottom === null,
        get unit() {
            return overlay.node.info.clusterSize ?? DEFAULT_UNIT;
        },
    });
    const thaw = bottom === null ? null : (context.freezeChain?.(bottom) ?? null);
    return new CopyOnReadNode(file, copier, thaw);
}
function findBottom(context, name) {
    const bottom = context.findNode?.(name) ?? null;
    if (bottom === null)
        throw new BlockError('not-found', `Bottom node '${name}' not found`);
    if (bottom.filtered !== null) {
        throw new BlockError('invalid-option', `Bottom node '${name}' is a filter`);
    }
    for (const node of nodesOfView(context.child('file').node))
        if (node === bottom)
            return node;
    const text = `Bottom node '${name}' is not in the backing chain of '${context.node.name}'`;
    throw new BlockError('invalid-option', text);
}
class CopyOnReadNode {
    #file;
    #copier;
    /** Lets the chain down to the bottom change again. */
    #thaw;
    constructor(file, copier, thaw = null) {
        this.#file = file;
        this.#copier = copier;
        this.#thaw = thaw;
    }
    get length() {
        return this.#file.node.length;
    }
    get growsOnWrite() {
        return this.#file.node.driverNode.growsOnWrite === true;
    }
    get limits() {
        return this.#file.node.limits;
    }
    childPermissions(_child, parents) {
        return permissionsOnFile(parents);
    }
    read(request) {
        return settle(this.#copier.fill(request.offset, request.length), (failure) => {
            if (failure !== null)
                throw failure.error;
            return this.#file.node.read(request);
        });
    }
    close() {
        this.#thaw?.();
        return Promise.resolve();
    }
}
