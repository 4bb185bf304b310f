// SPDX-License-Identifier: Apache-2.0
// A host whose files live in memory. Without a seed every call answers inline; with one, a share
// of the calls answers later and in seeded order, so both ways of every caller are exercised.
import { BlockError, errnoText, kindOfErrno, ManualClock, SeededRandom, } from '../../base/index.js';
import { LockTable } from '../locks/lock-table.js';
import { FaultPlan } from './fault-plan.js';
import { MemoryFile } from './memory-file.js';
import { SimulatedScheduler } from './scheduler.js';
import { SimulatedVolume } from './simulated-volume.js';
/** Alignment that a file opened direct asks for, in bytes. */
const DIRECT_ALIGNMENT = 512;
export class MemoryHost {
    name = 'simulated';
    clock;
    random;
    /** Counts calls and fails those it is told to. */
    faults;
    volume = new SimulatedVolume();
    #locks = new LockTable();
    #context;
    constructor(options = {}) {
        const seed = options.seed ?? 0;
        this.clock = options.clock ?? new ManualClock();
        this.random = new SeededRandom(seed);
        this.faults = new FaultPlan(options.faults);
        const laterChance = options.laterChance ?? (options.seed === undefined ? 0 : 0.25);
        this.#context = {
            scheduler: new SimulatedScheduler(new SeededRandom(seed ^ 0x5eed), laterChance),
            faults: this.faults,
            changing: (node) => this.beforeChange(node),
            changed: (node, change) => this.recordChange(node, change),
            beginSync: (node) => this.beginSync(node),
        };
    }
    async openFile(path, options) {
        return this.openFileNow(path, options);
    }
    openFileNow(path, options) {
        const failure = this.faults.next('open', path);
        const node = this.volume.find(path);
        if (failure !== null)
            throw openError(path, failure.errno);
        if (node === undefined)
            throw openError(path, 'ENOENT');
        return this.#open(path, node, options);
    }
    async createFile(path) {
        const failure = this.faults.next('create', path);
        if (failure !== null)
            throw createError(path, failure.errno);
        const node = this.volume.find(path) ?? this.volume.create(path);
        return this.#open(path, node, { readOnly: false });
    }
    async stat(path) {
        const node = this.volume.find(path);
        if (node === undefined)
            return null;
        const { size, allocatedBytes } = node.store;
        return { identity: node.identity, kind: 'file', size, allocatedBytes };
    }
    async removeFile(path) {
        if (this.volume.remove(path))
            return;
        const message = `Could not remove '${path}': ${errnoText('ENOENT')}`;
        throw new BlockError('not-found', message, { path });
    }
    /** Puts a file in place, durable at once; replaces one of that name. Size in bytes. */
    putFile(path, contents, size = contents.length) {
        const node = this.volume.create(path);
        node.store.write(contents, 0);
        node.store.truncate(size);
    }
    /** A copy of a whole file as it reads now. */
    fileContents(path) {
        const node = this.volume.find(path);
        if (node === undefined)
            throw openError(path, 'ENOENT');
        const contents = new Uint8Array(node.store.size);
        node.store.read(contents, 0);
        return contents;
    }
    /** Names of all files, in the order of their creation. */
    paths() {
        return [...this.volume.nodes()].map((node) => node.path);
    }
    /** Called before every change of a file. */
    beforeChange(_node) { }
    /** Called after every change of a file; a crash disk keeps it. */
    recordChange(_node, _change) { }
    /** Called when a sync begins; the result is called if it succeeds. */
    beginSync(_node) {
        return () => undefined;
    }
    #open(path, node, options) {
        return new MemoryFile(node, this.#context, {
            path,
            identity: node.identity,
            kind: 'file',
            readOnly: options.readOnly,
            noFlush: options.noFlush ?? false,
            alignment: options.direct === true ? DIRECT_ALIGNMENT : 1,
            locks: this.#locks,
        });
    }
}
function createError(path, errno) {
    const message = `Could not create '${path}': ${errnoText(errno)}`;
    return new BlockError(kindOfErrno(errno), message, { path, errno });
}
function openError(path, errno) {
    const kind = errno === 'ENOENT' ? 'not-found' : 'io';
    return new BlockError(kind, `Could not open '${path}': ${errnoText(errno)}`, { path, errno });
}
