// SPDX-License-Identifier: Apache-2.0
// Entries of L2 tables that a repair turns into what they say without a place: zeroes that were
// preallocated at an offset where no cluster begins.
//
// They are noted while tables are swept and not counted; tables are written once everything is
// counted, and only where nothing but L1 tables names them: a table that is guest data or another
// structure as well stays as it is. Of an extended entry the bitmap stays: what is not zero in it
// is not the image's own.

import { writeRequest } from '../../../../block/index.js';
import type { Child } from '../../../../block/index.js';
import { EntryKind, entryHostOffset, entryKind } from '../entries.js';
import type { Qcow2Header } from '../header.js';
import { readWithin } from './refcounts-on-disk.js';
import type { Regions } from './regions.js';

/** An entry that has a place which no cluster has, and no data there. */
export function isMisplacedZero(view: DataView, at: number, header: Qcow2Header): boolean {
  const { clusterSize, l2EntryBytes, dataFile } = header.geometry;
  if (dataFile) return false;
  const hi = view.getUint32(at);
  const lo = view.getUint32(at + 4);
  const kind = entryKind(hi, lo, 3);
  if (kind !== EntryKind.data && kind !== EntryKind.zeroAllocated) return false;
  if (entryHostOffset(hi, lo) % clusterSize === 0) return false;
  return l2EntryBytes === 16 ? view.getUint32(at + 12) === 0 : kind === EntryKind.zeroAllocated;
}

export class Mendings {
  /** Offsets of tables, each once. */
  readonly #tables = new Set<number>();

  note(tableOffset: number): void {
    this.#tables.add(tableOffset);
  }

  get isEmpty(): boolean {
    return this.#tables.size === 0;
  }

  /** Writes the tables; false where one must not be written, with those before it mended. */
  async apply(
    file: Pick<Child, 'node'>,
    header: Qcow2Header,
    regions: Regions,
  ): Promise<boolean> {
    const { clusterSize, l2EntryBytes } = header.geometry;
    const bytes = new Uint8Array(clusterSize);
    const view = new DataView(bytes.buffer);
    for (const offset of [...this.#tables].toSorted((left, right) => left - right)) {
      if (!regions.isTableOnly(offset)) return false;
      await readWithin(file, offset, bytes);
      for (let at = 0; at < clusterSize; at += l2EntryBytes) {
        if (!isMisplacedZero(view, at, header)) continue;
        view.setUint32(at, 0);
        view.setUint32(at + 4, l2EntryBytes === 16 ? 0 : 1);
      }
      await file.node.write(writeRequest(offset, bytes));
    }
    await file.node.flush();
    return true;
  }
}
