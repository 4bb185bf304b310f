// SPDX-License-Identifier: Apache-2.0
// The metadata of one image as the data path uses it: lookup and change of L2 entries.
//
// lookup() and forWriting() answer within the turn: a table, or a promise after which the caller
// asks again. L2 entries change only through setEntry(), under a range lock (leases.ts).
import { BlockError } from '../../../../base/index.js';
import { compressedHostOffset, compressedLength, EntryKind, entryHostOffset, entryKind, isCopied, } from '../entries.js';
import { Allocator } from './alloc.js';
import { Flusher } from './flush.js';
import { growRefcountTable } from './grow.js';
import { Qcow2Image } from './image.js';
import { Refcounts } from './refcounts.js';
export class MetadataStore {
    image;
    refcounts;
    allocator;
    flusher;
    #growing = null;
    constructor(options) {
        this.image = new Qcow2Image(options);
        this.refcounts = new Refcounts(this.image);
        this.allocator = new Allocator(this.image, this.refcounts);
        this.flusher = new Flusher(this.image, this.refcounts);
        this.allocator.growTable = (blockCount) => this.#growTable(blockCount);
    }
    /** The L2 table for a guest offset; null when there is none; a promise: wait and ask again. */
    lookup(guestOffset) {
        const { image } = this;
        const offset = image.l2Offset(Math.floor(guestOffset / image.geometry.l2Coverage));
        if (offset === 0)
            return null;
        return image.l2.peek(offset) ?? image.l2.load(offset);
    }
    /** The same, made when missing, and ours alone (an L2 table that is shared is copied). */
    forWriting(guestOffset) {
        const { image, allocator } = this;
        const index = Math.floor(guestOffset / image.geometry.l2Coverage);
        const offset = image.l2Offset(index);
        const copied = isCopied(offset === 0 ? 0 : image.l1View.getUint32(index * 8));
        const old = offset === 0 ? null : image.l2.load(offset);
        if (old instanceof Promise)
            return old;
        if (old !== null && copied)
            return old;
        image.event(old === null ? 'l2_alloc_write' : 'l2_alloc_cow_read');
        const run = allocator.take(1);
        if (run instanceof Promise)
            return run;
        const table = image.l2.add(run.offset, old?.bytes.slice());
        image.setL1(index, run.offset);
        if (old !== null) {
            image.overlaps.removeL2(old.offset);
            image.l2.drop(old);
            this.refcounts.free(old.offset, 1, false);
        }
        return table;
    }
    /** Replaces the entry of a guest cluster in the table that covers it; frees nothing. */
    setEntry(table, guestCluster, entry) {
        const { image } = this;
        const at = (guestCluster % image.geometry.l2Entries) * 8;
        table.view.setUint32(at, entry.hi);
        table.view.setUint32(at + 4, entry.lo);
        image.l2.touch(table);
        if (image.watchers.size > 0)
            image.entryChanged(guestCluster);
    }
    /**
     * Drops what an entry that was just replaced held: a cluster, or bytes of one or two. What a bad
     * entry names may be metadata or somebody else's: it is neither emptied nor freed.
     */
    freeEntry(hi, lo, punch) {
        const { image, refcounts } = this;
        const { clusterSize, geometry } = image;
        const kind = entryKind(hi, lo, image.version);
        if (kind === EntryKind.compressed) {
            const offset = compressedHostOffset(hi, lo, geometry.clusterBits);
            const length = compressedLength(hi, lo, geometry.clusterBits);
            const first = Math.floor(offset / clusterSize);
            const last = Math.floor((offset + length - 1) / clusterSize);
            refcounts.free(first * clusterSize, last - first + 1, false);
        }
        else if (kind === EntryKind.data || kind === EntryKind.zeroAllocated) {
            const offset = entryHostOffset(hi, lo);
            if (offset % clusterSize !== 0 || image.overlaps.hit(offset, clusterSize) !== null)
                return;
            refcounts.free(offset, 1, punch && isCopied(hi));
        }
    }
    /** Waits for room among the dirty tables; undefined when there is. */
    makeRoom() {
        return this.flusher.isCrowded ? this.flusher.flush(false) : undefined;
    }
    /** Drops every cache and reads the top-level tables again; everything must be flushed. */
    async reload() {
        if (!this.flusher.isClean) {
            throw new BlockError('invalid-state', `${this.image.label}: metadata is not flushed`);
        }
        this.image.adopt(await this.image.structures.reload());
        this.allocator.reset();
    }
    #growTable(blockCount) {
        this.#growing ??= growRefcountTable(this, blockCount).finally(() => {
            this.#growing = null;
        });
        return this.#growing;
    }
}
