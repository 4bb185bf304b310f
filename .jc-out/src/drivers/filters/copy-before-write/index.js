// SPDX-License-Identifier: Apache-2.0
// The filter `copy-before-write`: before a guest changes data, its old bytes go to the target.
//
// So the target, with what a job has copied, holds the state of the moment the filter came in, and
// that state can be read through the filter (snapshotView) meanwhile. A job gives its bitmap: what
// either has copied the other does not copy again. Nobody may write to the node below past the
// filter, hence no sharing of write.
import { Permission, settle } from '../../../base/index.js';
import { ChildRole, defineDriver, RequestFlag, showBits } from '../../../block/index.js';
import { CopyBeforeWrite, CopyBitmap } from '../../../block/copy/index.js';
import { chosenUnits, timeoutOf } from './setup.js';
const ON_TARGET = {
    taken: Permission.write,
    shared: Permission.all & ~Permission.resize,
};
export const copyBeforeWrite = defineDriver({
    name: 'copy-before-write',
    kind: 'filter',
    children: {
        file: { role: ChildRole.filtered | ChildRole.primary, required: true },
        target: { role: ChildRole.data, required: true },
    },
    supports: {
        read: 'pass',
        write: 'native',
        writeZeroes: 'native',
        discard: 'native',
        flush: 'pass',
        blockStatus: 'pass',
        truncate: 'native',
        planExtents: 'pass',
        reserve: 'none',
        compressedWrite: 'none',
        changeBacking: 'none',
        check: 'none',
    },
    namedAfterFile: true,
    openingPermissions: (_, parents, child) => (child === 'target' ? ON_TARGET : parents),
    open: (context, options) => Promise.resolve(openFilter(context, options)),
});
function openFilter(context, options) {
    const { node } = context;
    const children = { source: context.child('file'), target: context.child('target') };
    if (options.bitmap instanceof CopyBitmap) {
        const own = { bitmap: options.bitmap, onError: 'break-guest-write', timeout: null };
        return new CopyBeforeWriteNode(node, new CopyBeforeWrite({ ...children, ...own }), children);
    }
    const given = options;
    const copier = new CopyBeforeWrite({
        ...children,
        bitmap: chosenUnits(context, given),
        onError: given['on-cbw-error'] ?? 'break-guest-write',
        timeout: timeoutOf(context, given),
    });
    return new CopyBeforeWriteNode(node, copier, children);
}
class CopyBeforeWriteNode {
    #node;
    #file;
    #copier;
    #hide;
    constructor(node, copier, { source }) {
        this.#node = node;
        this.#file = source;
        this.#copier = copier;
        const { done, access } = copier.snapshot;
        this.#hide = [
            showBits(source.node, countOf(copier.bitmap)),
            showBits(node, countOf(done)),
            showBits(node, countOf(access)),
        ];
    }
    get length() {
        return this.#file.node.length;
    }
    get limits() {
        return this.#file.node.limits;
    }
    get growsOnWrite() {
        return this.#file.node.driverNode.growsOnWrite === true;
    }
    get snapshotView() {
        return this.#copier.snapshot;
    }
    childPermissions(child, parents) {
        if (child.name === 'target')
            return ON_TARGET;
        // Not in use yet (its users still stand on the node below): nothing to protect.
        if (this.#node.parents.size === 0)
            return parents;
        const reads = (parents.taken & Permission.write) === 0 ? 0 : Permission.consistentRead;
        return {
            taken: parents.taken | reads,
            shared: parents.shared & ~(Permission.write | Permission.resize),
        };
    }
    write(request) {
        return settle(this.#before(request), () => this.#file.node.write(request));
    }
    writeZeroes(request) {
        return settle(this.#before(request), () => this.#file.node.writeZeroes(request));
    }
    discard(request) {
        return settle(this.#before(request), () => this.#file.node.discard(request));
    }
    truncate(size, options) {
        const cut = this.length - size;
        const kept = cut > 0 ? this.#copier.before(size, cut) : undefined;
        return settle(kept, () => this.#file.node.truncate(size, options));
    }
    #before(request) {
        if ((request.flags & RequestFlag.unchanged) !== 0)
            return undefined;
        return this.#copier.before(request.offset, request.length);
    }
    close() {
        for (const hide of this.#hide)
            hide();
        return Promise.resolve();
    }
}
function countOf(bitmap) {
    return {
        granularity: bitmap.unit,
        get count() {
            return bitmap.dirtyUnits * bitmap.unit;
        },
    };
}
