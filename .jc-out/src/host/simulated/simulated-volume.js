// SPDX-License-Identifier: Apache-2.0
// The files of a simulated host, by path; what happens to them can be recorded by a crash disk.
//
// Names are durable at once: only contents and sizes are at risk in a power cut.
import { posix } from 'node:path';
import { PagedStore } from './paged-store.js';
export class VolumeNode {
    path;
    identity;
    store;
    constructor(path, inode, store) {
        this.path = path;
        this.identity = { device: 'simulated', inode: String(inode) };
        this.store = store;
    }
}
export class SimulatedVolume {
    #nodes = new Map();
    #nextInode = 1;
    find(path) {
        return this.#nodes.get(normalize(path));
    }
    create(path, store = new PagedStore()) {
        const name = normalize(path);
        const node = new VolumeNode(name, this.#nextInode++, store);
        this.#nodes.set(name, node);
        return node;
    }
    remove(path) {
        return this.#nodes.delete(normalize(path));
    }
    nodes() {
        return this.#nodes.values();
    }
}
/** Applies a change; `discard` is taken as zeroing. */
export function applyChange(store, change) {
    switch (change.kind) {
        case 'write':
            store.write(change.bytes, change.offset);
            break;
        case 'write-zeroes':
            store.zero(change.offset, change.length, true);
            break;
        case 'discard':
            store.zero(change.offset, change.length, false);
            break;
        case 'truncate':
            store.truncate(change.size);
            break;
    }
}
function normalize(path) {
    return posix.resolve('/', path);
}
