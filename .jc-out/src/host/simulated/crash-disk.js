// SPDX-License-Identifier: Apache-2.0
// A host that can lose its power at any moment.
//
// Beside what readers see it keeps what is durable, and the ordered changes between the two. A
// successful sync makes durable what had taken effect when it began. A power cut leaves the
// durable contents plus any subset of the other changes, in any order, torn at 512-byte sectors.
// Cutting the power makes a new host and leaves this one running, so that a single run can be cut
// at each of its writes.
import { assert } from '../../base/index.js';
import { MemoryHost } from './memory-host.js';
import { applyChange } from './simulated-volume.js';
/** The unit that a power cut does not tear, in bytes. */
const SECTOR_BYTES = 512;
/** Largest zeroed range whose sectors are torn one by one; larger ones split into this many. */
const TORN_PIECES = 64;
export class CrashDisk extends MemoryHost {
    /** Called after every change with its number from 0; may take power-loss images. */
    onWrite = null;
    #durable = new Map();
    #unsynced = [];
    #changes = 0;
    /** Changes of file contents and sizes so far. */
    get writeCount() {
        return this.#changes;
    }
    /** What a power cut may lose, oldest first. */
    unsyncedChanges() {
        return this.#unsynced.map(({ node, change }) => ({
            path: node.path,
            kind: change.kind,
            offset: change.kind === 'truncate' ? change.size : change.offset,
            length: lengthOf(change),
        }));
    }
    /** The host as it is found after a power cut at this moment. */
    afterPowerLoss(choice) {
        const stores = new Map();
        for (const node of this.volume.nodes()) {
            stores.set(node, (this.#durable.get(node) ?? node.store).clone());
        }
        if (isRandom(choice))
            surviveByChance(this.#unsynced, stores, choice);
        else
            this.#surviveByList(stores, choice);
        const host = new RecoveredHost({ clock: this.clock });
        host.adopt(stores);
        return host;
    }
    /** The host as it is found when every unsynced change is lost. */
    durable() {
        return this.afterPowerLoss([]);
    }
    putFile(path, contents, size = contents.length) {
        const old = this.volume.find(path);
        if (old !== undefined)
            this.#forget(old);
        super.putFile(path, contents, size);
    }
    async removeFile(path) {
        const node = this.volume.find(path);
        await super.removeFile(path);
        if (node !== undefined)
            this.#forget(node);
    }
    recordChange(node, change) {
        assert(this.#durable.has(node), `durable state of '${node.path}'`);
        this.#unsynced.push({ node, change });
        const index = this.#changes++;
        this.onWrite?.(index);
    }
    beforeChange(node) {
        if (!this.#durable.has(node))
            this.#durable.set(node, node.store.clone());
    }
    beginSync(node) {
        const covered = new Set(this.#unsynced.filter((entry) => entry.node === node));
        return () => {
            const durable = this.#durable.get(node);
            if (durable === undefined)
                return;
            this.#unsynced = this.#unsynced.filter((entry) => {
                if (!covered.has(entry))
                    return true;
                applyChange(durable, entry.change);
                return false;
            });
        };
    }
    #forget(node) {
        this.#durable.delete(node);
        this.#unsynced = this.#unsynced.filter((entry) => entry.node !== node);
    }
    #surviveByList(stores, kept) {
        for (const index of kept) {
            const entry = this.#unsynced[index];
            assert(entry !== undefined, `there is no unsynced change ${index}`);
            const store = stores.get(entry.node);
            if (store !== undefined)
                applyChange(store, entry.change);
        }
    }
}
class RecoveredHost extends MemoryHost {
    adopt(stores) {
        for (const [node, store] of stores)
            this.volume.create(node.path, store);
    }
}
function surviveByChance(unsynced, stores, random) {
    const order = [...unsynced];
    if (random.chance(0.5))
        shuffle(order, random);
    const keepChance = [0, 0.25, 0.5, 0.75, 1][random.below(5)] ?? 0.5;
    for (const { node, change } of order) {
        const store = stores.get(node);
        if (store === undefined || !random.chance(keepChance))
            continue;
        if (change.kind === 'truncate' || random.chance(0.7))
            applyChange(store, change);
        else
            applyTorn(store, change, random);
    }
}
/** Applies some sectors of a change; pieces end at sector boundaries of the file. */
function applyTorn(store, change, random) {
    const end = change.offset + lengthOf(change);
    const step = change.kind === 'write'
        ? SECTOR_BYTES
        : Math.max(1, Math.ceil(lengthOf(change) / (SECTOR_BYTES * TORN_PIECES))) * SECTOR_BYTES;
    for (let at = change.offset; at < end;) {
        const next = Math.min(end, Math.floor(at / SECTOR_BYTES) * SECTOR_BYTES + step);
        if (random.chance(0.5)) {
            if (change.kind === 'write') {
                store.write(change.bytes.subarray(at - change.offset, next - change.offset), at);
            }
            else {
                store.zero(at, next - at, change.kind === 'write-zeroes');
            }
        }
        at = next;
    }
}
function lengthOf(change) {
    if (change.kind === 'write')
        return change.bytes.length;
    return change.kind === 'truncate' ? 0 : change.length;
}
function shuffle(list, random) {
    for (let index = list.length - 1; index > 0; index -= 1) {
        const other = random.below(index + 1);
        const moved = list[index];
        list[index] = list[other];
        list[other] = moved;
    }
}
function isRandom(choice) {
    return 'chance' in choice;
}
