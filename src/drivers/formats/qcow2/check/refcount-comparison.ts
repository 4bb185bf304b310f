// SPDX-License-Identifier: Apache-2.0
// Compares the references that were counted with the refcounts on disk, and mends those that can
// be mended where they stand.

import { writeRefcount } from '../metadata/index.js';
import { isZero } from '../../../../codec/index.js';
import type { Qcow2Header } from '../header.js';
import type { Findings } from './findings.js';
import type { ReferenceCounts } from './references.js';
import { refcountAt } from './refcounts-on-disk.js';
import type { RefcountsOnDisk } from './refcounts-on-disk.js';
import type { Regions } from './regions.js';

export interface ComparisonContext {
  readonly header: Qcow2Header;
  readonly findings: Findings;
  readonly regions: Regions;
  readonly onDisk: RefcountsOnDisk;
  /** Host clusters of the file; what is counted may end a little behind it. */
  readonly fileClusters: number;
}

export class RefcountComparison {
  /** Some refcount is missing, or a block of them cannot be used. */
  needsRebuild = false;
  /** First cluster behind all that are in use. */
  endCluster = 0;
  readonly #context: ComparisonContext;
  readonly #references: ReferenceCounts;
  /** What is mended; null: it is only told. */
  #repair: 'leaks' | 'all' | null = null;

  constructor(context: ComparisonContext) {
    this.#context = context;
    this.#references = context.regions.references;
  }

  /**
   * Counts the refcount table and its blocks; to be called when all else is counted. A block behind
   * the end is settled where all is mended: the new table does without it.
   */
  countStructures(mendsAll: boolean): void {
    const { header, findings, regions, onDisk } = this.#context;
    const { clusterSize } = header.geometry;
    const { refcountTableOffset, refcountTableClusters } = header.fields;
    regions.countRefcounts(refcountTableOffset, refcountTableClusters * clusterSize);
    for (let index = 0; index < onDisk.tableEntries; index += 1) {
      const offset = onDisk.blockOffset(index);
      const found = findings.corruptions;
      const isOutside = offset / clusterSize >= this.#clusterCount;
      if ((onDisk.entryLo(index) & 0x1ff) !== 0) {
        findings.corrupt(() => `ERROR refcount table entry ${index} has reserved bits set`);
      } else if (offset % clusterSize !== 0) {
        findings.corrupt(
          () =>
            `ERROR refcount block ${index} is not cluster aligned; refcount table entry corrupted`,
        );
      } else if (isOutside) {
        const act = mendsAll ? 'Repairing' : 'ERROR';
        findings.say(() => `${act} refcount block ${index} is outside image`);
        if (mendsAll) findings.corruptionsFixed += 1;
        else findings.corruptions += 1;
        this.needsRebuild ||= mendsAll;
        continue;
      } else if (offset !== 0) {
        regions.countRefcounts(offset, clusterSize);
        const count = this.#references.get(offset / clusterSize);
        if (count !== 1) {
          findings.corrupt(() => `ERROR refcount block ${index} refcount=${count}`);
        }
      }
      this.needsRebuild ||= findings.corruptions > found;
    }
  }

  get #clusterCount(): number {
    return Math.max(this.#context.fileClusters, this.#references.end);
  }

  async compare(repair: 'leaks' | 'all' | null): Promise<void> {
    this.#repair = repair;
    const { header, onDisk } = this.#context;
    const clusterCount = this.#clusterCount;
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
      if (block === null) this.#refuseBlock(cluster, end);
      else if (none || isZero(block)) this.#compareUncounted(cluster, end);
      else if (repair === null) this.#compareBlock(block, cluster, end);
      else await onDisk.replace(index, this.#mendBlock(block, cluster, end));
      cluster = end;
    }
  }

  /** Clusters whose refcounts are all zero: those with references are gone through. */
  #compareUncounted(from: number, end: number): void {
    for (let at = this.#references.next(from); at < end; at = this.#references.next(at + 1)) {
      this.#compareCluster(at, 0, this.#references.get(at));
    }
  }

  #compareBlock(block: Uint8Array, from: number, end: number): void {
    const { refcountBlockEntries, refcountBits } = this.#context.header.geometry;
    const first = from % refcountBlockEntries;
    const counts = this.#references.counts(from, end - from);
    if (counts !== null && refcountBits === 16) {
      this.#compareCounts(block.subarray(first * 2), counts, from);
      return;
    }
    for (let at = from; at < end; at += 1) {
      const refcount = refcountAt(block, first + at - from, refcountBits);
      const references = this.#references.get(at);
      if (refcount === references && refcount > 0) this.endCluster = at + 1;
      else this.#compareCluster(at, refcount, references);
    }
  }

  /** The same for refcounts of 16 bits and references that lie together: nearly all there are. */
  #compareCounts(block: Uint8Array, counts: Uint8Array | Uint32Array, from: number): void {
    let used = 0;
    for (let index = 0; index < counts.length; index += 1) {
      const refcount = ((block[2 * index] ?? 0) << 8) | (block[2 * index + 1] ?? 0);
      const references = counts[index] ?? 0;
      if (refcount !== references) this.#compareCluster(from + index, refcount, references);
      if (refcount !== 0 || references !== 0) used = index + 1;
    }
    if (used > 0) this.endCluster = from + used;
  }

  /** The block with those refcounts corrected that may be corrected in their place. */
  #mendBlock(block: Uint8Array, from: number, end: number): Uint8Array {
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
      if (isLeak) findings.leaksFixed += 1;
      else findings.corruptionsFixed += 1;
      writeRefcount(view, { order: refcountOrder, index }, references);
    }
    return mended;
  }

  #refuseBlock(from: number, end: number): void {
    const { findings } = this.#context;
    this.needsRebuild = true;
    findings.checkErrors += end - from;
    const worded = Math.min(end, from + findings.room);
    for (let at = from; at < worded; at += 1) {
      findings.say(() => `Can't get refcount for cluster ${at}: Input/output error`);
    }
  }

  #compareCluster(cluster: number, refcount: number, references: number): void {
    if (refcount > 0 || references > 0) this.endCluster = cluster + 1;
    if (refcount === references) return;
    const { findings } = this.#context;
    const facts = (): string => `cluster ${cluster} refcount=${refcount} reference=${references}`;
    if (refcount > references) findings.leak(() => `Leaked ${facts()}`);
    else {
      this.needsRebuild ||= refcount === 0;
      findings.corrupt(() => `ERROR ${facts()}`);
    }
  }
}
