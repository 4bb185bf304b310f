// SPDX-License-Identifier: Apache-2.0
// The filter `commit_top`, which a commit job puts above the last image that it takes along.
//
// It asks nothing of what lies below: while the data moves down, the images between are read by
// the job and the overlay alone. It has no options; only jobs make it.
import { Permission } from '../../../base/index.js';
import { ChildRole, defineDriver } from '../../../block/index.js';
export const commitTop = defineDriver({
    name: 'commit_top',
    kind: 'filter',
    namedAfterFile: true,
    children: { backing: { role: ChildRole.filtered | ChildRole.primary, required: true } },
    supports: {
        read: 'pass',
        write: 'none',
        writeZeroes: 'none',
        discard: 'none',
        flush: 'pass',
        blockStatus: 'pass',
        truncate: 'none',
        planExtents: 'pass',
        reserve: 'none',
        compressedWrite: 'none',
        changeBacking: 'none',
        check: 'none',
    },
    open: (context) => Promise.resolve(new CommitTopNode(context.child('backing'))),
});
class CommitTopNode {
    #below;
    constructor(below) {
        this.#below = below;
    }
    get length() {
        return this.#below.node.length;
    }
    get limits() {
        return this.#below.node.limits;
    }
    childPermissions() {
        return { taken: Permission.none, shared: Permission.all };
    }
    close() {
        return Promise.resolve();
    }
}
