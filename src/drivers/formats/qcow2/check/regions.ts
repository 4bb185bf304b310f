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

const HOW_TO_WIDEN =
  'Use qemu-img amend to increase the refcount entry width or qemu-img convert to create a clean ' +
  'copy if the image cannot be opened for writing';

export interface RegionOptions {
  readonly findings: Findings;
  readonly geometry: Geometry;
  /** Bytes. */
  readonly fileLength: number;
}

export class Regions {
  readonly references = new ReferenceCounts();
  /** How many of them are L1 entries that name a cluster as an L2 table. */
  readonly tables = new ReferenceCounts();
  /** References by structures that are no L2 tables. */
  readonly #structures = new ReferenceCounts();
  /** Some cluster has more references than refcounts can say. */
  overflows = false;
  /** Clusters of ranges that the file ends before: the first million of them. */
  readonly beyond = new ReferenceCounts();
  #beyondCount = 0;
  /** How often the refcount table and its blocks refer to a cluster. */
  readonly refcountStructures = new Map<number, number>();
  readonly #findings: Findings;
  readonly #clusterSize: number;
  readonly #maxRefcount: number;
  readonly #fileLength: number;

  constructor({ findings, geometry, fileLength }: RegionOptions) {
    this.#findings = findings;
    this.#clusterSize = geometry.clusterSize;
    this.#maxRefcount = geometry.maxRefcount;
    this.#fileLength = fileLength;
  }

  /**
   * Counts `times` references for each cluster that the byte range touches; `shown` is the offset
   * in hexadecimal where a number does not hold all its digits.
   */
  count(
    offset: number,
    length: number,
    { times = 1, shown = '', isStructure = true } = {},
  ): void {
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
      this.#add(cluster, times);
      if (isStructure) this.#structures.add(cluster);
    }
  }

  /** What `times` L1 entries name as an L2 table. */
  countTable(offset: number, times: number): void {
    this.count(offset, this.#clusterSize, { times, isStructure: false });
    if (offset % this.#clusterSize === 0) this.tables.add(offset / this.#clusterSize, times);
  }

  /** Whether the cluster at an aligned offset is an L2 table and nothing else. */
  isTableOnly(offset: number): boolean {
    const cluster = offset / this.#clusterSize;
    if (!Number.isInteger(cluster)) return false;
    return this.references.get(cluster) === this.tables.get(cluster);
  }

  /** Whether no other structure lies where the L2 table at an offset is. */
  isFreeOfStructures(offset: number): boolean {
    const cluster = offset / this.#clusterSize;
    return Number.isInteger(cluster) && this.#structures.get(cluster) === 0;
  }

  #add(cluster: number, times: number): void {
    const room = this.#maxRefcount - this.references.get(cluster);
    if (times <= room) {
      this.references.add(cluster, times);
      return;
    }
    if (room > 0) this.references.add(cluster, room);
    this.overflows = true;
    const findings = this.#findings;
    findings.corruptions += times - room;
    const offset = (cluster * this.#clusterSize).toString(16);
    for (let told = Math.min(times - room, findings.room); told > 0; told -= 1) {
      findings.say(() => `ERROR: overflow cluster offset=0x${offset}`);
      findings.say(() => HOW_TO_WIDEN);
    }
  }

  /** One whole cluster at an aligned offset; false when count() is to be asked. */
  countCluster(offset: number, times: number): boolean {
    if (offset + this.#clusterSize > this.#fileLength) return false;
    const cluster = offset / this.#clusterSize;
    if (!Number.isInteger(cluster)) return false;
    this.#add(cluster, times);
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
