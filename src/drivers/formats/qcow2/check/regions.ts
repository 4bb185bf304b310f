// SPDX-License-Identifier: Apache-2.0
// Counts the references of byte ranges, and finds the ranges that the file ends before.
//
// Whatever an image refers to passes here once: header, tables, data, the snapshot table, the
// bitmap directory. The refcount table and its blocks are counted apart as well, for a rebuild
// drops them.

import { IMAGE_LIMITS } from '../../../../base/index.js';
import type { Geometry } from '../layout.js';
import type { Findings } from './findings.js';
import { ReferenceCounts } from './references.js';

export interface RegionOptions {
  readonly findings: Findings;
  readonly geometry: Geometry;
  /** Bytes. */
  readonly fileLength: number;
}

export class Regions {
  readonly references = new ReferenceCounts();
  /** Clusters of ranges that the file ends before: the first million of them. */
  readonly beyond = new ReferenceCounts();
  #beyondCount = 0;
  /** How often the refcount table and its blocks refer to a cluster. */
  readonly refcountStructures = new Map<number, number>();
  readonly #findings: Findings;
  readonly #clusterSize: number;
  readonly #fileLength: number;

  constructor({ findings, geometry, fileLength }: RegionOptions) {
    this.#findings = findings;
    this.#clusterSize = geometry.clusterSize;
    this.#fileLength = fileLength;
  }

  /**
   * Counts `times` references for each cluster that the byte range touches; `shown` is the offset
   * in hexadecimal where a number does not hold all its digits.
   */
  count(offset: number, length: number, { times = 1, shown = '' } = {}): void {
    if (length === 0) return;
    if (this.#endsBefore(offset, length)) {
      this.#findings.corrupt(() => {
        const place = shown === '' ? offset.toString(16) : shown;
        return (
          'ERROR: counting reference for region exceeding the end of the file by one cluster ' +
          `or more: offset 0x${place} size 0x${length.toString(16)}`
        );
      }, times);
      this.#noteBeyond(offset, length);
      return;
    }
    const last = Math.floor((offset + length - 1) / this.#clusterSize);
    for (let cluster = Math.floor(offset / this.#clusterSize); cluster <= last; cluster += 1) {
      this.references.add(cluster, times);
    }
  }

  /** One whole cluster at an aligned offset; false when count() is to be asked. */
  countCluster(offset: number, times: number): boolean {
    if (offset + this.#clusterSize > this.#fileLength) return false;
    const cluster = offset / this.#clusterSize;
    if (!Number.isInteger(cluster)) return false;
    this.references.add(cluster, times);
    return true;
  }

  /** The refcount table or one of its blocks. */
  countRefcounts(offset: number, length: number): void {
    this.count(offset, length);
    if (length === 0 || this.#endsBefore(offset, length)) return;
    const structures = this.refcountStructures;
    const last = Math.floor((offset + length - 1) / this.#clusterSize);
    for (let cluster = Math.floor(offset / this.#clusterSize); cluster <= last; cluster += 1) {
      structures.set(cluster, (structures.get(cluster) ?? 0) + 1);
    }
  }

  #noteBeyond(offset: number, length: number): void {
    const end = this.#fileLength;
    const last = Math.floor((offset + length - 1) / this.#clusterSize);
    let cluster = Math.floor(Math.max(offset, end) / this.#clusterSize);
    for (; cluster <= last; cluster += 1) {
      if (this.#beyondCount >= IMAGE_LIMITS.checkBeyondClusters) return;
      this.#beyondCount += 1;
      this.beyond.add(cluster);
    }
  }

  /** The last cluster of a file may be cut short, but not be missing. */
  #endsBefore(offset: number, length: number): boolean {
    return offset + length - this.#fileLength >= this.#clusterSize;
  }
}
