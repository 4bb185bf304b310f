// SPDX-License-Identifier: Apache-2.0
// Counts what the bitmap directory, the bitmap tables and their entries refer to.
//
// Bitmaps that are not trusted have their clusters too. A table that is broken or that the file
// ends before is a finding; its clusters are not known then.

import { BlockError, escapeControls } from '../../../../base/index.js';
import type { Child } from '../../../../block/index.js';
import {
  BitmapTable,
  LoadBudget,
  readEntries,
} from '../bitmaps/index.js';
import type { BitmapEntry } from '../bitmaps/index.js';
import { virtualSizeOf } from '../header.js';
import type { Qcow2Header } from '../header.js';
import type { Findings } from './findings.js';
import { readWithin } from './refcounts-on-disk.js';
import type { Regions } from './regions.js';

export interface BitmapSweep {
  readonly file: Pick<Child, 'node'>;
  readonly header: Qcow2Header;
  readonly findings: Findings;
  readonly regions: Regions;
}

/** Rejects where the directory itself cannot be read. */
export async function countBitmaps(sweep: BitmapSweep): Promise<void> {
  const { file, header, regions } = sweep;
  const { bitmaps: place, geometry } = header;
  if (place === null) return;
  regions.count(place.offset, place.size);
  const bounds = { clusterSize: geometry.clusterSize, size: virtualSizeOf(header) };
  const budget = new LoadBudget();
  for await (const entry of readEntries(file.node, place, bounds)) {
    regions.count(entry.tableOffset, entry.tableSize * 8);
    budget.takeTable(entry.tableSize * 8);
    await countTable(sweep, entry);
  }
}

async function countTable(sweep: BitmapSweep, entry: BitmapEntry): Promise<void> {
  const { file, header, findings, regions } = sweep;
  const { clusterSize } = header.geometry;
  const bytes = new Uint8Array(entry.tableSize * 8);
  await readWithin(file, entry.tableOffset, bytes);
  const table = new BitmapTable(bytes, clusterSize);
  for (let index = 0; index < table.size; index += 1) {
    try {
      const place = table.get(index);
      if (typeof place === 'number') regions.count(place, clusterSize);
    } catch (error) {
      if (!(error instanceof BlockError)) throw error;
      const { name } = entry;
      findings.corrupt(() => `ERROR bitmap '${escapeControls(name)}': ${error.message}`);
    }
  }
}
