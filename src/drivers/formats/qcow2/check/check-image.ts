// SPDX-License-Identifier: Apache-2.0
// Consistency check of a qcow2 image: counters and findings as the reference gives them.
//
// Sweeps: (1) count a reference for everything that the header, the L1 table and all L2 tables
// point to; (2) count the refcount table and its blocks; (3) compare with the refcounts on disk;
// (4) compare copied flags with those refcounts.
//
// Only a repair writes: entries that cannot be what they are (mendings.ts), then refcounts where
// they stand or, when one is missing, all made anew (rebuild.ts); with that on disk, the snapshot
// table and copied flags follow; last the header loses its marks. What could be read reads as
// before.

import { BlockError, hasAny, orBits } from '../../../../base/index.js';
import type { CheckResult, Child } from '../../../../block/index.js';
import { virtualSizeOf } from '../header.js';
import type { Qcow2Header } from '../header.js';
import { CORRUPT_BIT, DIRTY_BIT } from '../layout.js';
import type { HeaderPatch } from '../metadata/index.js';
import { countBitmaps } from './bitmaps.js';
import { CopiedFlags } from './copied-flags.js';
import { Findings } from './findings.js';
import { L2Tables } from './l2-tables.js';
import { MappingSweep } from './mappings.js';
import { Mendings } from './mendings.js';
import { rebuildRefcounts } from './rebuild.js';
import { RefcountComparison } from './refcount-comparison.js';
import { readWithin, RefcountsOnDisk } from './refcounts-on-disk.js';
import { Regions } from './regions.js';
import { renewSnapshotTable } from './snapshot-table.js';
import { countSnapshots } from './snapshots.js';

export interface RepairRequest {
  readonly mode: 'leaks' | 'all';
  /** Writes fields of the header's first sector. */
  patch(patch: HeaderPatch): Promise<void>;
}

/** Everything must be on disk, and nobody may write meanwhile. Rejects on an unreadable table. */
export async function checkImage(
  file: Pick<Child, 'node'>,
  header: Qcow2Header,
  repair: 'none' | RepairRequest,
): Promise<CheckResult> {
  const { fields, geometry } = header;
  const l1 = new Uint8Array(fields.l1Size * 8);
  await readWithin(file, fields.l1TableOffset, l1);
  const table = new Uint8Array(fields.refcountTableClusters * geometry.clusterSize);
  await readWithin(file, fields.refcountTableOffset, table);
  const tables = new L2Tables(file, header, new DataView(l1.buffer));
  const check = new Check({ file, header, tables }, table, repair === 'none' ? null : repair);
  return check.run();
}

interface Subject {
  readonly file: Pick<Child, 'node'>;
  readonly header: Qcow2Header;
  /** Of the active L1 table. */
  readonly tables: L2Tables;
}

/** What was found before refcounts were looked at. */
interface Before {
  readonly corruptions: number;
  readonly leaks: number;
}

class Check {
  readonly #subject: Subject;
  readonly #findings = new Findings();
  readonly #regions: Regions;
  readonly #mappings: MappingSweep;
  readonly #comparison: RefcountComparison;
  readonly #repair: RepairRequest | null;
  /** Where all is mended that can be. */
  readonly #mendings: Mendings | null;
  #onDisk: RefcountsOnDisk;
  /** Entries of the snapshot table that a new one is to mend. */
  #shortSnapshots = 0;
  /** Found wrong with the refcount table: only a rebuild settles it. */
  #structureCorruptions = 0;

  constructor(subject: Subject, refcountTable: Uint8Array, repair: RepairRequest | null) {
    this.#subject = subject;
    this.#repair = repair;
    this.#mendings = repair?.mode === 'all' ? new Mendings() : null;
    const { file, header } = subject;
    const { geometry } = header;
    const fileLength = file.node.length;
    const findings = this.#findings;
    this.#onDisk = new RefcountsOnDisk(file, header, refcountTable);
    this.#regions = new Regions({ findings, geometry, fileLength });
    const [regions, mendings] = [this.#regions, this.#mendings];
    const isRepair = repair !== null;
    const context = { header, findings, regions, fileLength, mendings, isRepair };
    this.#mappings = new MappingSweep(context);
    this.#comparison = new RefcountComparison({
      header,
      findings,
      regions: this.#regions,
      onDisk: this.#onDisk,
      fileClusters: Math.ceil(fileLength / geometry.clusterSize),
    });
  }

  async run(): Promise<CheckResult> {
    const { header, file, tables } = this.#subject;
    const [findings, regions, mendings] = [this.#findings, this.#regions, this.#mendings];
    const isRepair = this.#repair !== null;
    const context = { file, header, findings, regions, mendings, isRepair };
    regions.count(0, header.geometry.clusterSize);
    if (header.cryptHeader !== null) {
      regions.count(header.cryptHeader.offset, header.cryptHeader.length);
    }
    await this.#mappings.count(header.fields.l1TableOffset, tables);
    const { mended } = await countSnapshots(context);
    this.#shortSnapshots = mended;
    await countBitmaps({ file, header, findings, regions });
    const before = { corruptions: findings.corruptions, leaks: findings.leaks };
    this.#comparison.countStructures(mendings !== null);
    this.#structureCorruptions = findings.corruptions - before.corruptions;
    if (await this.#writeMendings()) await this.#settleRefcounts(before);
    return this.#result();
  }

  /** False where the repair ends. */
  async #writeMendings(): Promise<boolean> {
    const mendings = this.#mendings;
    if (mendings === null || mendings.isEmpty) return true;
    const { header, file } = this.#subject;
    if (await mendings.apply(file, header, this.#regions)) return true;
    this.#findings.say(() => 'ERROR: Overlap check failed');
    this.#findings.failure = 'Input/output error';
    return false;
  }

  async #settleRefcounts(before: Before): Promise<void> {
    const { header, file, tables } = this.#subject;
    const [findings, repair] = [this.#findings, this.#repair];
    await this.#comparison.compare(null);
    if (repair !== null) await this.#mendRefcounts(repair, before);
    if (this.#shortSnapshots > 0 && repair !== null) await this.#renewSnapshots(repair);
    // Without usable refcounts nothing can be said about the flags.
    if (findings.checkErrors === 0 && findings.failure === null && !this.#flagsAreRight()) {
      const [regions, onDisk] = [this.#regions, this.#onDisk];
      const isRepaired = this.#repairsFlags();
      const flags = new CopiedFlags({ file, header, findings, onDisk, regions, isRepaired });
      await flags.compare(header.fields.l1TableOffset, tables);
    }
    if (repair !== null) await this.#clearMarks(repair);
  }

  /** Where only leaks are mended, flags are as far as nothing else is wrong. */
  #repairsFlags(): boolean {
    const { corruptions, leaks } = this.#findings;
    return this.#repair?.mode === 'all' || (this.#repair !== null && corruptions + leaks === 0);
  }

  /** Every flag is set and every refcount is one: the usual image, which needs no second sweep. */
  #flagsAreRight(): boolean {
    const { corruptions, leaks } = this.#findings;
    if (corruptions + leaks > 0 || !this.#mappings.allCopied) return false;
    return !this.#regions.references.hasShared();
  }

  #result(): CheckResult {
    const { header } = this.#subject;
    const { clusterSize } = header.geometry;
    const { failure, ...counters } = this.#findings;
    return {
      ...counters,
      totalClusters: Math.ceil(virtualSizeOf(header) / clusterSize),
      allocatedClusters: this.#mappings.allocated,
      fragmentedClusters: this.#mappings.fragmented,
      compressedClusters: this.#mappings.compressed,
      imageEndOffset: this.#comparison.endCluster * clusterSize,
      ...(failure !== null && { failure }),
    };
  }

  /** What a repair settles is taken back from the findings: those of `before` stay. */
  async #mendRefcounts(repair: RepairRequest, before: Before): Promise<void> {
    const findings = this.#findings;
    if (!this.#comparison.needsRebuild) {
      const stays = before.corruptions + this.#structureCorruptions;
      if (findings.corruptions === stays && findings.leaks === before.leaks) return;
      findings.corruptions = stays;
      findings.leaks = before.leaks;
      await this.#comparison.compare(repair.mode);
      await this.#subject.file.node.flush();
      return;
    }
    if (repair.mode !== 'all') {
      findings.say(() => 'ERROR need to rebuild refcount structures');
      findings.failure = 'Input/output error';
      return;
    }
    await this.#rebuild(repair);
    findings.corruptionsFixed += findings.corruptions - before.corruptions;
    findings.leaksFixed += findings.leaks - before.leaks;
    findings.corruptions = before.corruptions;
    findings.leaks = before.leaks;
    findings.checkErrors = 0;
  }

  async #rebuild(repair: RepairRequest): Promise<void> {
    const findings = this.#findings;
    findings.say(() => 'Rebuilding refcount structure');
    const { file, header } = this.#subject;
    const { references, beyond, refcountStructures: structures, overflows } = this.#regions;
    if (overflows) {
      const text = 'Some clusters have more references than refcounts can say';
      throw new BlockError('corrupt-image', text);
    }
    const patch = async (fields: HeaderPatch): Promise<void> => {
      await repair.patch(fields);
      await file.node.flush();
    };
    const request = { file, header, references, beyond, structures, patch };
    const { table } = await rebuildRefcounts(request);
    this.#onDisk = new RefcountsOnDisk(file, header, table);
    for (const cluster of [...structures.keys()].toSorted((a, b) => a - b)) {
      const count = references.get(cluster);
      const left = Math.max(0, count - (structures.get(cluster) ?? 0));
      findings.say(() => `Repairing cluster ${cluster} refcount=${count} reference=${left}`);
    }
  }

  /** Without room for another table its entries stay what they are. */
  async #renewSnapshots(repair: RepairRequest): Promise<void> {
    const { file, header } = this.#subject;
    const [findings, regions, onDisk] = [this.#findings, this.#regions, this.#onDisk];
    const patch = async (fields: HeaderPatch): Promise<void> => {
      await repair.patch(fields);
      await file.node.flush();
    };
    const isSound = findings.failure === null && findings.checkErrors === 0;
    const renewal = { file, header, regions, onDisk, patch };
    if (isSound && (await renewSnapshotTable(renewal))) return;
    findings.corruptionsFixed -= this.#shortSnapshots;
    findings.corruptions += this.#shortSnapshots;
    findings.say(() => 'ERROR failed to update snapshot table');
  }

  /** Nothing is wrong any more: the header need not say so. */
  async #clearMarks(repair: RepairRequest): Promise<void> {
    const { file, header } = this.#subject;
    const { corruptions, checkErrors, failure } = this.#findings;
    if (corruptions + checkErrors > 0 || failure !== null) return;
    await file.node.flush();
    if (!hasAny(header.fields.incompatibleFeatures, orBits(CORRUPT_BIT, DIRTY_BIT))) return;
    await repair.patch({ corrupt: false, dirty: false });
    await file.node.flush();
  }
}
