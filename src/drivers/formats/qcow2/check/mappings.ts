// SPDX-License-Identifier: Apache-2.0
// Counts what one L1 table and its L2 tables refer to; the counters of a check are of the active
// one alone.

import { hexBits } from '../../../../base/index.js';
import type { Bits64 } from '../../../../base/index.js';
import {
  compressedHostOffset,
  compressedLength,
  EntryKind,
  entryKindOutside,
  entryHostOffset,
  entryIn,
  entryKind,
  hasReservedL1Bits,
  hasReservedL2Bits,
  isCompressed,
  isContradiction,
  isCopied,
} from '../entries.js';
import type { Qcow2Header } from '../header.js';
import type { Findings } from './findings.js';
import type { L2Tables } from './l2-tables.js';
import { isMisplacedZero } from './mendings.js';
import type { Mendings } from './mendings.js';
import type { Regions } from './regions.js';

export interface MappingContext {
  readonly header: Qcow2Header;
  readonly findings: Findings;
  readonly regions: Regions;
  /** Bytes. */
  readonly fileLength: number;
  /** Takes the tables whose entries are to be mended; null: that is only told. */
  readonly mendings: Mendings | null;
  /** Refcounts will be mended: what cannot be read now keeps its clusters. */
  readonly isRepair: boolean;
}

/** An L2 table as it is met. */
export interface SweptTable {
  readonly offset: number;
  readonly bytes: Uint8Array;
  /** L1 entries that name it. */
  readonly times: number;
}

export class MappingSweep {
  /** Guest clusters with a place in the file. */
  allocated = 0;
  /** Those of them that do not follow their predecessor in the L2 table. */
  fragmented = 0;
  compressed = 0;
  /** Every entry that may have the copied flag has it. */
  allCopied = true;
  readonly #context: MappingContext;

  constructor(context: MappingContext) {
    this.#context = context;
  }

  /** The L1 table at `l1Offset` with its L2 tables and their clusters. */
  async count(l1Offset: number, tables: L2Tables): Promise<void> {
    const { header, findings, regions, fileLength } = this.#context;
    const { clusterSize } = header.geometry;
    regions.count(l1Offset, tables.entries * 8);
    for (let index = 0; index < tables.entries; index += 1) {
      const hi = tables.hi(index);
      const lo = tables.lo(index);
      if (hi === 0 && lo === 0) continue;
      this.allCopied &&= isCopied(hi);
      if (hasReservedL1Bits(hi, lo)) {
        const entry = hexBits({ hi, lo });
        findings.corrupt(() => `ERROR found L1 entry with reserved bits set: ${entry}`);
      }
      const offset = entryHostOffset(hi, lo);
      regions.countTable(offset, 1);
      if (offset % clusterSize !== 0) {
        findings.corrupt(
          () =>
            `ERROR l2_offset=${offset.toString(16)}: Table is not cluster aligned; ` +
            'L1 entry corrupted',
        );
      }
      // Said already; and awaiting for each of four million entries would take seconds.
      if (offset >= fileLength) continue;
      const times = tables.visits(offset);
      if (times === 0) continue;
      const read = tables.read(index);
      const bytes = read instanceof Promise ? await read : read;
      if (bytes !== null) this.countTable({ offset, bytes, times });
    }
  }

  /** What the entries of one L2 table name, as often as `times` says. */
  countTable({ offset: tableOffset, bytes, times }: SweptTable): void {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const { header, findings, regions } = this.#context;
    const { clusterSize, l2EntryBytes, dataFile } = header.geometry;
    let next = 0;
    for (let at = 0; at < bytes.length; at += l2EntryBytes) {
      const hi = view.getUint32(at);
      const lo = view.getUint32(at + 4);
      if (l2EntryBytes === 16 && this.#refusesBitmap(view, at, times)) continue;
      if (hi === 0 && lo === 0) continue;
      const kind = dataFile ? entryKindOutside(hi, lo, 3) : entryKind(hi, lo, 3);
      if (kind === EntryKind.compressed) {
        if (dataFile) this.#refuseCompressed(view, at, times);
        else this.#countCompressed(hi, lo, times);
        continue;
      }
      // Version 2's zero bit is nothing that the reference's check tells.
      if (hasReservedL2Bits(hi, lo, 3)) {
        const entry = hexBits({ hi, lo });
        findings.corrupt(() => `ERROR found l2 entry with reserved bits set: ${entry}`, times);
      }
      if (kind !== EntryKind.data && kind !== EntryKind.zeroAllocated) continue;
      const offset = entryHostOffset(hi, lo);
      if (this.#isMended(view, at, tableOffset)) continue;
      this.allocated += times;
      this.allCopied &&= isCopied(hi);
      if (next !== 0 && offset !== next) this.fragmented += times;
      next = offset + clusterSize;
      if (!dataFile) {
        if (regions.countCluster(offset, times)) continue;
        regions.count(offset, clusterSize, { times, isStructure: false });
      }
      if (offset % clusterSize === 0) continue;
      const isData = l2EntryBytes === 16 ? view.getUint32(at + 12) !== 0 : kind === EntryKind.data;
      const what = isData ? 'Data' : 'Preallocated';
      findings.corrupt(
        () =>
          `ERROR offset=${offset.toString(16)}: ${what} cluster is not properly aligned; ` +
          'L2 entry corrupted.',
        times,
      );
    }
  }

  /** Whether the entry will say nothing but zeroes once its table is written. */
  #isMended(view: DataView, at: number, tableOffset: number): boolean {
    const { mendings, header, findings } = this.#context;
    if (mendings === null || tableOffset % header.geometry.clusterSize !== 0) return false;
    if (!isMisplacedZero(view, at, header)) return false;
    mendings.note(tableOffset);
    findings.corruptionsFixed += 1;
    findings.say(() => {
      const shown = entryHostOffset(view.getUint32(at), view.getUint32(at + 4)).toString(16);
      return (
        `Repairing offset=${shown}: Preallocated cluster is not properly aligned; ` +
        'L2 entry corrupted.'
      );
    });
    return true;
  }

  /** Whether nothing is to be counted for an entry whose subcluster bitmap cannot be. */
  #refusesBitmap(view: DataView, at: number, times: number): boolean {
    const { findings, header } = this.#context;
    const entry = entryIn(view, at, header.geometry);
    const { hi, lo, zeroes, allocated } = entry;
    if (isCompressed(hi)) {
      if (zeroes === 0 && allocated === 0) return false;
      const index = at / header.geometry.l2EntryBytes;
      findings.corrupt(
        () =>
          `ERROR compressed cluster ${index} with non-zero subcluster allocation bitmap, ` +
          `entry=0x${hexBits({ hi, lo })}`,
        times,
      );
      return !this.#context.isRepair;
    }
    if (!isContradiction(entry)) return false;
    const offset = entryHostOffset(hi, lo);
    findings.corrupt(
      () =>
        offset === 0
          ? 'ERROR: Unallocated cluster has non-zero subcluster allocation map'
          : `ERROR offset=${offset.toString(16)}: Allocated cluster has corrupted subcluster ` +
            'allocation bitmap',
      times,
    );
    return false;
  }

  #refuseCopied(entry: Bits64, clusterBits: number, times: number): void {
    if (!isCopied(entry.hi)) return;
    this.#context.findings.corrupt(() => {
      const shown = shownOffset(entry, clusterBits);
      return `ERROR: coffset=0x${shown}: copied flag must never be set for compressed clusters`;
    }, times);
  }

  /** The data file has no place for it. */
  #refuseCompressed(view: DataView, at: number, times: number): void {
    const { header, findings } = this.#context;
    const { clusterBits, l2EntryBytes } = header.geometry;
    const hi = view.getUint32(at);
    const lo = view.getUint32(at + 4);
    this.#refuseCopied({ hi, lo }, clusterBits, times);
    const entry = hexBits({ hi: (hi & 0x7fff_ffff) >>> 0, lo });
    const index = at / l2EntryBytes;
    findings.corrupt(
      () => `ERROR compressed cluster ${index} with data file, entry=0x${entry}`,
      times,
    );
  }

  #countCompressed(hi: number, lo: number, times: number): void {
    const { header, regions } = this.#context;
    const { clusterBits } = header.geometry;
    const shown = shownOffset({ hi, lo }, clusterBits);
    this.#refuseCopied({ hi, lo }, clusterBits, times);
    const offset = compressedHostOffset(hi, lo, clusterBits);
    const length = compressedLength(hi, lo, clusterBits);
    regions.count(offset, length, { times, shown, isStructure: false });
    this.allocated += times;
    this.compressed += times;
    // Compressed data shares sectors with its neighbours, so it always counts as fragmented.
    this.fragmented += times;
  }
}

/** Such an offset may have more digits than a number holds; only messages need them. */
function shownOffset({ hi, lo }: Bits64, clusterBits: number): string {
  return hexBits({ hi: hi & (2 ** (38 - clusterBits) - 1), lo });
}
