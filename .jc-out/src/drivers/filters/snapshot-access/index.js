// SPDX-License-Identifier: Apache-2.0
// The driver `snapshot-access`: reads the past state that the node below keeps.
//
// It asks for no permission, so that it can stand beside the guest's own use of that node. Data,
// status and discards go past the node's requests to its snapshot view; whether there is one is
// seen at each request, for the node below may be replaced. Nothing can be written. A flush is one
// of where old data is kept, which is what makes room of discards there.
import { BlockError, Permission } from '../../../base/index.js';
import { ChildRole, defineDriver } from '../../../block/index.js';
export const snapshotAccess = defineDriver({
    name: 'snapshot-access',
    kind: 'format',
    children: {
        file: { role: ChildRole.data | ChildRole.primary, required: true, permissions: 'own' },
    },
    supports: {
        read: 'native',
        write: 'none',
        writeZeroes: 'none',
        discard: 'native',
        flush: 'native',
        blockStatus: 'native',
        truncate: 'none',
        planExtents: 'none',
        reserve: 'none',
        compressedWrite: 'none',
        changeBacking: 'none',
        check: 'none',
    },
    namedAfterFile: true,
    open: (context) => Promise.resolve(new SnapshotAccessNode(context.child('file'))),
});
class SnapshotAccessNode {
    #file;
    length;
    constructor(file) {
        this.#file = file;
        this.length = file.node.driverNode.snapshotView?.length ?? file.node.length;
    }
    get limits() {
        return this.#file.node.limits;
    }
    childPermissions() {
        return { taken: Permission.none, shared: Permission.all };
    }
    info() {
        return { dirty: null };
    }
    read(request) {
        return this.#view().read(request);
    }
    blockStatus(offset, length, exact) {
        return this.#view().blockStatus(offset, length, exact);
    }
    discard(request) {
        return this.#view().discard(request);
    }
    flush() {
        return this.#file.node.driverNode.snapshotView?.flush();
    }
    close() {
        return Promise.resolve();
    }
    #view() {
        const { node } = this.#file;
        const view = node.driverNode.snapshotView;
        if (view !== undefined && this.length <= view.length)
            return view;
        const text = `Node '${node.name}' keeps no snapshot of ${this.length} bytes to read`;
        throw new BlockError('unsupported', text, { node: node.name });
    }
}
