// SPDX-License-Identifier: Apache-2.0
// Compares the references that were counted with the refcounts on disk, and mends those that can
// be mended where they stand.
import { writeRefcount } from '../metadata/index.js';
import { isZero } from '../../../../codec/index.js';
import { refcountAt } from './refcounts-on-disk.js';
export class RefcountComparison {
    /** Some refcount is missing, or a block of them cannot be used. */
    needsRebuild = false;
    /** First cluster behind all that are in use. */
    endCluster = 0;
    #context;
    #references;
    /** What is mended; null: it is only told. */
    #repair = null;
    constructor(context) {
        this.#context = context;
        this.#references = context.regions.references;
    }
    /** Counts the refcount table and its blocks; to be called when all else is counted. */
    countStructures() {
        const { header, findings, regions, onDisk, clusterCount } = this.#context;
        const { clusterSize } = header.geometry;
        const { refcountTableOffset, refcountTableClusters } = header.fields;
        regions.countRefcounts(refcountTableOffset, refcountTableClusters * clusterSize);
        for (let index = 0; index < onDisk.tableEntries; index += 1) {
            const offset = onDisk.blockOffset(index);
            const found = findings.corruptions;
            if ((onDisk.entryLo(index) & 0x1ff) !== 0) {
                findings.corrupt(() => `ERROR refcount table entry ${index} has reserved bits set`);
            }
            else if (offset % clusterSize !== 0) {
                findings.corrupt(() => `ERROR refcount block ${index} is not cluster aligned; refcount table entry corrupted`);
            }
            else if (offset / clusterSize >= clusterCount) {
                findings.corrupt(() => `ERROR refcount block ${index} is outside image`);
            }
            else if (offset !== 0) {
                regions.countRefcounts(offset, clusterSize);
                const count = this.#references.get(offset / clusterSize);
                if (count !== 1) {
                    findings.corrupt(() => `ERROR refcount block ${index} refcount=${count}`);
                }
            }
            this.needsRebuild ||= findings.corruptions > found;
        }
    }
    async compare(repair) {
        this.#repair = repair;
        const { header, onDisk, clusterCount } = this.#context;
        const { refcountBlockEntries } = header.geometry;
        let cluster = 0;
        while (cluster < clusterCount) {
            const index = Math.floor(cluster / refcountBlockEntries);
            const end = Math.min(clusterCount, (index + 1) * refcountBlockEntries);
            if (index >= onDisk.tableEntries) {
                this.#compareUncounted(cluster, clusterCount);
                return;
            }
            const none = onDisk.blockOffset(index) === 0;
            const found = onDisk.block(index);
            const block = found instanceof Promise ? await found : found;
            if (block === null)
                this.#refuseBlock(cluster, end);
            else if (none || isZero(block))
                this.#compareUncounted(cluster, end);
            else if (repair === null)
                this.#compareBlock(block, cluster, end);
            else
                await onDisk.replace(index, this.#mendBlock(block, cluster, end));
            cluster = end;
        }
    }
    /** Clusters whose refcounts are all zero: those with references are gone through. */
    #compareUncounted(from, end) {
        for (let at = this.#references.next(from); at < end; at = this.#references.next(at + 1)) {
            this.#compareCluster(at, 0, this.#references.get(at));
        }
    }
    #compareBlock(block, from, end) {
        const { refcountBlockEntries, refcountBits } = this.#context.header.geometry;
        const first = from % refcountBlockEntries;
        for (let at = from; at < end; at += 1) {
            const refcount = refcountAt(block, first + at - from, refcountBits);
            const references = this.#references.get(at);
            if (refcount === references && refcount > 0)
                this.endCluster = at + 1;
            else
                this.#compareCluster(at, refcount, references);
        }
    }
    /** The block with those refcounts corrected that may be corrected in their place. */
    #mendBlock(block, from, end) {
        const { findings, header } = this.#context;
        const { refcountBlockEntries, refcountBits, refcountOrder, maxRefcount } = header.geometry;
        const mended = block.slice();
        const view = new DataView(mended.buffer);
        for (let at = from; at < end; at += 1) {
            const index = at % refcountBlockEntries;
            const refcount = refcountAt(block, index, refcountBits);
            const references = this.#references.get(at);
            const isLeak = refcount > references;
            const isCorruption = refcount < references && this.#repair === 'all';
            if (!isLeak && (!isCorruption || references > maxRefcount)) {
                this.#compareCluster(at, refcount, references);
                continue;
            }
            findings.say(() => `Repairing cluster ${at} refcount=${refcount} reference=${references}`);
            if (isLeak)
                findings.leaksFixed += 1;
            else
                findings.corruptionsFixed += 1;
            writeRefcount(view, { order: refcountOrder, index }, references);
        }
        return mended;
    }
    #refuseBlock(from, end) {
        const { findings } = this.#context;
        this.needsRebuild = true;
        findings.checkErrors += end - from;
        const worded = Math.min(end, from + findings.room);
        for (let at = from; at < worded; at += 1) {
            findings.say(() => `Can't get refcount for cluster ${at}: Input/output error`);
        }
    }
    #compareCluster(cluster, refcount, references) {
        if (refcount > 0 || references > 0)
            this.endCluster = cluster + 1;
        if (refcount === references)
            return;
        const { findings } = this.#context;
        const facts = () => `cluster ${cluster} refcount=${refcount} reference=${references}`;
        if (refcount > references)
            findings.leak(() => `Leaked ${facts()}`);
        else {
            this.needsRebuild ||= refcount === 0;
            findings.corrupt(() => `ERROR ${facts()}`);
        }
    }
}
