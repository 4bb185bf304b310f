// SPDX-License-Identifier: Apache-2.0
// Discards and zeroes: changes of L2 entries without data.
//
// Version 3 says "reads as zeroes" in the entry. Version 2 cannot: without a backing file an
// unallocated entry reads as zeroes, with one (be it named in the header and not open) only
// written zeroes do, and a discard does nothing (it would uncover the backing file). A discard
// touches whole clusters only; the image's last cluster counts as whole when the range reaches the
// end. All entries of one L2 table change in one turn, so no lock is held, but held locks are
// waited for.
import { BlockError, settle } from '../../../../base/index.js';
import { RequestFlag } from '../../../../block/index.js';
import { EntryKind, entryKind, entryLo } from '../entries.js';
import { RunPlan } from './plan.js';
import { nothing, runSteps } from './steps.js';
const DISCARD = { discard: true, unmap: true };
const ZERO_UNMAP = { discard: false, unmap: true };
const ZERO_KEEP = { discard: false, unmap: false };
const ZERO_HOLES = { discard: false, unmap: false, holes: true };
export class Eraser {
    stepLength = 0;
    #store;
    #image;
    #writer;
    #plan;
    constructor(store, writer) {
        this.#store = store;
        this.#image = store.image;
        this.#writer = writer;
        this.#plan = new RunPlan(store.image);
    }
    discard(offset, length) {
        const image = this.#image;
        image.assertWritable();
        if (image.version < 3 && image.backing !== null)
            return undefined;
        const { start, end } = this.#wholeClusters(offset, length);
        if (start >= end)
            return undefined;
        return this.#change({ offset: start, length: end - start }, DISCARD);
    }
    writeZeroes(offset, length, flags) {
        const image = this.#image;
        image.assertWritable();
        const unmap = (flags & RequestFlag.mayUnmap) !== 0;
        const { start, end } = this.#wholeClusters(offset, length);
        const sayable = image.version >= 3 || (image.holesStayZero && unmap);
        if (!sayable || start >= end)
            return this.#zeroEdge(offset, length, flags);
        const change = unmap ? ZERO_UNMAP : ZERO_KEEP;
        const head = this.#zeroEdge(offset, start - offset, flags);
        const middle = settle(head, () => this.#change({ offset: start, length: end - start }, change));
        return settle(middle, () => this.#zeroEdge(end, offset + length - end, flags));
    }
    /** As writeZeroes(), but what reads as zeroes already stays as it is. */
    hide(offset, length) {
        return settle(this.#readsAsZeroes(offset, length), (known) => known ? undefined : this.#writer.writeZeroData(offset, length));
    }
    /** Makes whole clusters read as zeroes where the format can say so (v3, or no backing file). */
    zeroClusters(offset, length) {
        return this.#change({ offset, length }, ZERO_UNMAP);
    }
    /** One cluster within this turn; its table is ours to write, and no lock covers the cluster. */
    zeroCluster(table, cluster) {
        this.#apply(table, cluster, ZERO_UNMAP);
    }
    step(offset, length, change) {
        this.stepLength = 0;
        const image = this.#image;
        const { clusterSize, geometry } = image;
        const room = this.#store.makeRoom();
        if (room !== undefined)
            return room;
        const reach = Math.min(length, geometry.l2Coverage - (offset % geometry.l2Coverage));
        const first = offset / clusterSize;
        const end = Math.ceil((offset + reach) / clusterSize);
        const conflict = image.locks.conflict(first, end);
        if (conflict !== null)
            return conflict;
        const present = this.#store.lookup(offset);
        if (present instanceof Promise)
            return present.then(nothing);
        if (present !== null || this.#needsEntry(EntryKind.unallocated, change)) {
            const table = this.#store.forWriting(offset);
            if (table instanceof Promise)
                return table.then(nothing);
            if (table === undefined)
                return undefined;
            for (let cluster = first; cluster < end; cluster += 1)
                this.#apply(table, cluster, change);
        }
        this.stepLength = reach;
        return undefined;
    }
    #change(range, change) {
        return runSteps(this, range, { leases: this.#image.leases, context: change });
    }
    #needsEntry(kind, change) {
        const { version, backing } = this.#image;
        if (kind === EntryKind.zero)
            return false;
        if (kind !== EntryKind.unallocated)
            return true;
        return version >= 3 && (!change.discard || backing !== null);
    }
    #apply(table, cluster, change) {
        const image = this.#image;
        const at = (cluster % image.geometry.l2Entries) * 8;
        const hi = table.view.getUint32(at);
        const lo = table.view.getUint32(at + 4);
        const kind = entryKind(hi, lo, image.version);
        if (!this.#needsEntry(kind, change))
            return;
        if (change.holes === true && kind !== EntryKind.unallocated)
            return;
        if (image.version < 3) {
            this.#store.setEntry(table, cluster, { hi: 0, lo: 0 });
            this.#store.freeEntry(hi, lo, this.#punches(change));
            return;
        }
        const keeps = kind === EntryKind.data || kind === EntryKind.zeroAllocated;
        if (!change.unmap && keeps) {
            if (kind === EntryKind.data)
                this.#store.setEntry(table, cluster, { hi, lo: (lo | 1) >>> 0 });
            return;
        }
        this.#store.setEntry(table, cluster, { hi: 0, lo: entryLo(0, true) });
        this.#store.freeEntry(hi, lo, this.#punches(change));
    }
    #punches(change) {
        const { passDiscardRequest } = this.#image;
        return change.unmap && passDiscardRequest;
    }
    #wholeClusters(offset, length) {
        const { clusterSize, size } = this.#image;
        const end = offset + length;
        return {
            start: Math.ceil(offset / clusterSize) * clusterSize,
            end: end === size ? end : Math.floor(end / clusterSize) * clusterSize,
        };
    }
    /**
     * A range that the entries cannot say: where it reads as zeroes its clusters say so from now on,
     * whatever backing file comes below them; else written zeroes.
     */
    #zeroEdge(offset, length, flags) {
        if (length <= 0)
            return undefined;
        const zero = this.#readsAsZeroes(offset, length);
        return settle(zero, (known) => known ? this.#claimHoles(offset, length) : this.#writeEdge(offset, length, flags));
    }
    #claimHoles(offset, length) {
        const { version, clusterSize, size } = this.#image;
        if (version < 3)
            return undefined;
        const start = Math.floor(offset / clusterSize) * clusterSize;
        const end = Math.min(size, Math.ceil((offset + length) / clusterSize) * clusterSize);
        return this.#change({ offset: start, length: end - start }, ZERO_HOLES);
    }
    #writeEdge(offset, length, flags) {
        if ((flags & RequestFlag.noFallback) !== 0) {
            throw new BlockError('unsupported', `${this.#image.label}: zeroes need data to be written`, {
                node: this.#image.name,
                offset,
            });
        }
        return this.#writer.writeZeroData(offset, length);
    }
    #holeIsZero() {
        const { version, backing, holesStayZero } = this.#image;
        return version >= 3 ? backing === null : holesStayZero;
    }
    #readsAsZeroes(offset, length) {
        const plan = this.#plan;
        for (let at = offset; at < offset + length; at += plan.length) {
            const table = this.#store.lookup(at);
            if (table instanceof Promise)
                return table.then(() => this.#readsAsZeroes(offset, length));
            plan.find(table, at, offset + length - at);
            const zero = plan.kind === EntryKind.zero || plan.kind === EntryKind.zeroAllocated;
            const hole = plan.kind === EntryKind.unallocated && this.#holeIsZero();
            if (!zero && !hole)
                return false;
        }
        return true;
    }
}
