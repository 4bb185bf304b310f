// SPDX-License-Identifier: Apache-2.0
// The filter `mirror_top`, which a mirror or an active commit puts above its source.
//
// Guests write through it: in write-blocking mode a write is over when the target has it, too.
// In a commit it takes no consistent-read, for what lies between is about to lose its meaning.
// It has no options; only jobs make it.
import { Permission } from '../../../base/index.js';
import { ChildRole, defineDriver } from '../../../block/index.js';
export const mirrorTop = defineDriver({
    name: 'mirror_top',
    kind: 'filter',
    namedAfterFile: true,
    children: { backing: { role: ChildRole.filtered | ChildRole.primary, required: true } },
    supports: {
        read: 'pass',
        write: 'native',
        writeZeroes: 'native',
        discard: 'pass',
        flush: 'pass',
        blockStatus: 'pass',
        truncate: 'none',
        planExtents: 'pass',
        reserve: 'none',
        compressedWrite: 'none',
        changeBacking: 'none',
        check: 'none',
    },
    open: (context, { mirror }) => Promise.resolve(new MirrorTopNode(context.child('backing'), mirror)),
});
class MirrorTopNode {
    #below;
    #mirror;
    #forwardWrite = (request) => this.#below.node.write(request);
    #forwardZeroes = (request) => this.#below.node.writeZeroes(request);
    constructor(below, mirror) {
        this.#below = below;
        this.#mirror = mirror;
    }
    get length() {
        return this.#below.node.length;
    }
    get limits() {
        return this.#below.node.limits;
    }
    childPermissions(_child, parents) {
        const shared = parents.shared | Permission.writeUnchanged;
        if (!this.#mirror.commits)
            return { taken: parents.taken, shared };
        return {
            taken: parents.taken & ~Permission.consistentRead,
            shared: shared | Permission.consistentRead,
        };
    }
    write(request) {
        return this.#mirror.write(request, this.#forwardWrite);
    }
    writeZeroes(request) {
        return this.#mirror.write(request, this.#forwardZeroes);
    }
    close() {
        return Promise.resolve();
    }
}
