// SPDX-License-Identifier: Apache-2.0
// The filter `compress`: every write becomes one of compressed clusters.
//
// Requests are aligned to the clusters of the format below, so a small write reads the cluster and
// writes it whole. Zeroes and discards pass: the format says them better without data.
import { BlockError } from '../../../base/index.js';
import { ChildRole, cutRequest, defineDriver, RequestFlag } from '../../../block/index.js';
export const compress = defineDriver({
    name: 'compress',
    kind: 'filter',
    children: { file: { role: ChildRole.filtered | ChildRole.primary, required: true } },
    supports: {
        read: 'native',
        write: 'native',
        writeZeroes: 'native',
        discard: 'native',
        flush: 'pass',
        blockStatus: 'pass',
        truncate: 'pass',
        planExtents: 'pass',
        reserve: 'none',
        compressedWrite: 'none',
        changeBacking: 'none',
        check: 'none',
    },
    open(context) {
        const file = context.child('file');
        const { driver } = file.node;
        if (driver.supports.compressedWrite === 'none') {
            throw new BlockError('unsupported', `Compression is not supported for underlying format: ${driver.name}`);
        }
        return Promise.resolve(new CompressNode(file));
    },
});
class CompressNode {
    #file;
    constructor(file) {
        this.#file = file;
    }
    get length() {
        return this.#file.node.length;
    }
    get limits() {
        const { limits, info } = this.#file.node;
        return {
            ...limits,
            requestAlignment: Math.max(limits.requestAlignment, info.clusterSize ?? 1),
        };
    }
    read(request) {
        const inside = cutRequest(request, this.length);
        request.buffer?.fill(0, inside?.length ?? 0);
        return inside === null ? undefined : this.#file.node.read(inside);
    }
    write(request) {
        const inside = cutRequest(request, this.length);
        if (inside === null)
            return undefined;
        const flags = inside.flags | RequestFlag.compressed;
        return this.#file.node.write({ ...inside, flags });
    }
    writeZeroes(request) {
        const inside = cutRequest(request, this.length);
        return inside === null ? undefined : this.#file.node.writeZeroes(inside);
    }
    discard(request) {
        return this.#file.node.discard(request);
    }
    close() {
        return Promise.resolve();
    }
}
