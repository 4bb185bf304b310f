// SPDX-License-Identifier: Apache-2.0
// Counts the references of byte ranges, and finds the ranges that the file ends before.
//
// Whatever an image refers to passes here once: header, tables, data, the snapshot table, the
// bitmap directory. The refcount table and its blocks are counted apart as well, for a rebuild
// drops them.
import { ReferenceCounts } from './references.js';
export class Regions {
    references = new ReferenceCounts();
    /** How often the refcount table and its blocks refer to a cluster. */
    refcountStructures = new Map();
    #findings;
    #clusterSize;
    #fileLength;
    constructor({ findings, geometry, fileLength }) {
        this.#findings = findings;
        this.#clusterSize = geometry.clusterSize;
        this.#fileLength = fileLength;
    }
    /**
     * Counts `times` references for each cluster that the byte range touches; `shown` is the offset
     * in hexadecimal where a number does not hold all its digits.
     */
    count(offset, length, { times = 1, shown = '' } = {}) {
        if (length === 0)
            return;
        if (this.#endsBefore(offset, length)) {
            this.#findings.corrupt(() => {
                const place = shown === '' ? offset.toString(16) : shown;
                return ('ERROR: counting reference for region exceeding the end of the file by one cluster ' +
                    `or more: offset 0x${place} size 0x${length.toString(16)}`);
            }, times);
            return;
        }
        const last = Math.floor((offset + length - 1) / this.#clusterSize);
        for (let cluster = Math.floor(offset / this.#clusterSize); cluster <= last; cluster += 1) {
            this.references.add(cluster, times);
        }
    }
    /** One whole cluster at an aligned offset; false when count() is to be asked. */
    countCluster(offset, times) {
        if (offset + this.#clusterSize > this.#fileLength)
            return false;
        const cluster = offset / this.#clusterSize;
        if (!Number.isInteger(cluster))
            return false;
        this.references.add(cluster, times);
        return true;
    }
    /** The refcount table or one of its blocks. */
    countRefcounts(offset, length) {
        this.count(offset, length);
        if (length === 0 || this.#endsBefore(offset, length))
            return;
        const structures = this.refcountStructures;
        const last = Math.floor((offset + length - 1) / this.#clusterSize);
        for (let cluster = Math.floor(offset / this.#clusterSize); cluster <= last; cluster += 1) {
            structures.set(cluster, (structures.get(cluster) ?? 0) + 1);
        }
    }
    /** The last cluster of a file may be cut short, but not be missing. */
    #endsBefore(offset, length) {
        return offset + length - this.#fileLength >= this.#clusterSize;
    }
}
