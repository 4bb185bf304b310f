// SPDX-License-Identifier: Apache-2.0
// Counts what the snapshots of an image refer to: their table, their L1 tables, and all behind.
//
// Snapshots share most of what they name, and a hostile image lets 65,536 of them share an L1 table
// or parts of it. So nothing is read twice: the bytes that L1 tables cover are swept once, each
// with the number of tables that hold it as its weight, and so is each distinct L2 table with the
// sum of its names.

import { BlockError, hexBits, IMAGE_LIMITS } from '../../../../base/index.js';
import type { Child } from '../../../../block/index.js';
import { entryHostOffset, hasReservedL1Bits } from '../entries.js';
import type { Qcow2Header } from '../header.js';
import { forEachSnapshot, keyOf } from '../snapshot-table.js';
import type { Snapshot } from '../snapshot-table.js';
import type { Findings } from './findings.js';
import { L2Tables } from './l2-tables.js';
import { MappingSweep } from './mappings.js';
import type { Mendings } from './mendings.js';
import { ReferenceCounts } from './references.js';
import { readWithin } from './refcounts-on-disk.js';
import type { Regions } from './regions.js';

export interface SnapshotContext {
  readonly file: Pick<Child, 'node'>;
  readonly header: Qcow2Header;
  readonly findings: Findings;
  readonly regions: Regions;
  readonly mendings: Mendings | null;
  readonly isRepair: boolean;
}

/** Bytes [start, end) that `weight` L1 tables hold. */
interface Segment {
  readonly start: number;
  readonly end: number;
  readonly weight: number;
}

const READ_BYTES = 1024 * 1024;
/** Version 3 needs the size of the VM state and of the disk. */
const NEEDED_EXTRA = 16;

/** What is to be done with the table where all is mended. */
export interface SnapshotTableState {
  /** Entries that were told to be repaired: by a new table. */
  readonly mended: number;
}

/** Rejects where the table cannot be read, or only in a way that may be wrong. */
export async function countSnapshots(context: SnapshotContext): Promise<SnapshotTableState> {
  const { file, header, findings, regions } = context;
  const { fields } = header;
  if (fields.nbSnapshots === 0) return { mended: 0 };
  const ranges: { start: number; end: number }[] = [];
  const unusable: string[] = [];
  const entries = new TableEntries(context);
  const visit = (snapshot: Snapshot): void => {
    const { l1Offset, l1Entries } = snapshot;
    entries.look(snapshot);
    const reason = unusableReason(header, snapshot);
    if (reason === null) ranges.push({ start: l1Offset, end: l1Offset + l1Entries * 8 });
    else unusable.push(unusable.length < findings.room ? reason() : '');
  };
  const isLenient = context.mendings !== null;
  const length = await forEachSnapshot(file.node, header, { visit, isLenient });
  const isDoubtful =
    entries.doubtful || unusable.length > 0 || ranges.some(({ end }) => end > file.node.length);
  // Whatever follows extra data that is no such thing would be taken for snapshots.
  if (entries.dropped > 0 && isDoubtful) {
    const text = `Snapshot table has too much extra metadata and no usable entries behind it`;
    throw new BlockError('corrupt-image', text);
  }
  for (const text of unusable) findings.corrupt(() => text);
  const segments = segmentsOf(ranges, file.node.length);
  countClusters(context, ranges);
  const tables = new ReferenceCounts();
  for (const segment of segments) await sweepSegment(context, segment, tables);
  await countTables(context, tables);
  regions.count(fields.snapshotsOffset, length);
  return { mended: entries.mended };
}

/** What is wrong with entries that a new table would mend. */
class TableEntries {
  mended = 0;
  /** Entries with more extra data than there may be. */
  dropped = 0;
  /** Some entry is one that nobody wrote. */
  doubtful = false;
  readonly #context: SnapshotContext;
  #index = 0;

  constructor(context: SnapshotContext) {
    this.#context = context;
  }

  look({ extraBytes, l1Offset, l1Entries, id, name }: Snapshot): void {
    const isText = id.length > 0 && !id.includes(0) && !name.includes(0);
    this.doubtful ||= l1Offset === 0 || l1Entries === 0 || !isText;
    const { findings, header, mendings } = this.#context;
    const index = this.#index;
    this.#index += 1;
    const most = IMAGE_LIMITS.qcow2SnapshotExtraBytes;
    const isLong = extraBytes > most;
    if (isLong) {
      this.dropped += 1;
      const what = `snapshot table entry ${index} (${extraBytes} > ${most})`;
      findings.say(() => `Discarding too much extra metadata in ${what}`);
    }
    const isShort = header.fields.version >= 3 && extraBytes < NEEDED_EXTRA;
    if (isShort) {
      const act = mendings === null ? 'ERROR' : 'Repairing';
      findings.say(() => `${act} snapshot table entry ${index} is incomplete`);
      if (mendings === null) findings.corruptions += 1;
    }
    if (!isLong && !isShort) return;
    if (mendings === null) return;
    this.mended += 1;
    findings.corruptionsFixed += 1;
  }
}

/** Words why the L1 table cannot be looked at; null when it can. */
function unusableReason(header: Qcow2Header, snapshot: Snapshot): (() => string) | null {
  const { l1Offset, l1Entries } = snapshot;
  const named = (field: string, value: number, what: string) => (): string => {
    const { id, name } = keyOf(snapshot);
    const place = `${field}=0x${value.toString(16)}`;
    return `ERROR snapshot ${id} (${name}) ${place}: ${what}; snapshot table entry corrupted`;
  };
  if (l1Offset % header.geometry.clusterSize !== 0) {
    return named('l1_offset', l1Offset, 'L1 table is not cluster aligned');
  }
  if (l1Entries * 8 <= IMAGE_LIMITS.qcow2L1Bytes) return null;
  return named('l1_size', l1Entries, 'L1 table is too large');
}

/** The ranges cut where their number changes, up to the end of the file. */
function segmentsOf(
  ranges: readonly { readonly start: number; readonly end: number }[],
  limit: number,
): Segment[] {
  const steps: { readonly at: number; readonly change: number }[] = [];
  for (const { start, end } of ranges) {
    const stop = Math.min(end, limit);
    if (start >= stop) continue;
    steps.push({ at: start, change: 1 }, { at: stop, change: -1 });
  }
  steps.sort((left, right) => left.at - right.at);
  const segments: Segment[] = [];
  let weight = 0;
  let from = 0;
  let bytes = 0;
  for (const { at, change } of steps) {
    if (weight > 0 && at > from) {
      segments.push({ start: from, end: at, weight });
      bytes += at - from;
    }
    from = at;
    weight += change;
  }
  if (bytes > IMAGE_LIMITS.checkSnapshotL1Bytes) {
    const text = `Too many L1 tables of snapshots: they take ${bytes} bytes`;
    throw new BlockError('corrupt-image', text);
  }
  return segments;
}

/** The places of the L1 tables themselves. */
function countClusters(
  { file, header, regions }: SnapshotContext,
  ranges: readonly { readonly start: number; readonly end: number }[],
): void {
  const { clusterSize } = header.geometry;
  const inside: { start: number; end: number }[] = [];
  for (const { start, end } of ranges) {
    // The table may be cut short within the last cluster, as any structure may.
    if (end - file.node.length >= clusterSize) regions.count(start, end - start);
    else inside.push({ start, end: Math.ceil(end / clusterSize) * clusterSize });
  }
  for (const { start, end, weight } of segmentsOf(inside, Infinity)) {
    for (let at = start; at < end; at += clusterSize) {
      regions.references.add(at / clusterSize, weight);
    }
  }
}

async function sweepSegment(
  context: SnapshotContext,
  { start, end, weight }: Segment,
  tables: ReferenceCounts,
): Promise<void> {
  const { file } = context;
  for (let at = start; at < end; ) {
    const status = await file.node.blockStatus(at, end - at, true);
    // Holes and data may meet within an entry, which is read with the data then.
    const hole = Math.floor((at + status.length) / 8) * 8;
    if (status.zero && hole > at) {
      at = Math.min(end, hole);
      continue;
    }
    const stop = Math.min(end, Math.max(at + 8, status.zero ? 0 : at + status.length));
    for (; at < stop; at += READ_BYTES) {
      const bytes = new Uint8Array(Math.min(READ_BYTES, Math.ceil((stop - at) / 8) * 8));
      await readWithin(file, at, bytes);
      countWords(context, { words: new DataView(bytes.buffer), weight }, tables);
    }
    at = Math.ceil(stop / 8) * 8;
  }
}

function countWords(
  { file, header, findings, regions }: SnapshotContext,
  { words, weight }: { readonly words: DataView; readonly weight: number },
  tables: ReferenceCounts,
): void {
  const { clusterSize } = header.geometry;
  const fileLength = file.node.length;
  for (let at = 0; at + 8 <= words.byteLength; at += 8) {
    const hi = words.getUint32(at);
    const lo = words.getUint32(at + 4);
    if (hi === 0 && lo === 0) continue;
    if (hasReservedL1Bits(hi, lo)) {
      const entry = hexBits({ hi, lo });
      findings.corrupt(() => `ERROR found L1 entry with reserved bits set: ${entry}`, weight);
    }
    const offset = entryHostOffset(hi, lo);
    regions.countTable(offset, weight);
    if (offset % clusterSize !== 0) {
      findings.corrupt(
        () =>
          `ERROR l2_offset=${offset.toString(16)}: Table is not cluster aligned; ` +
          'L1 entry corrupted',
        weight,
      );
    } else if (offset < fileLength) tables.add(offset / clusterSize, weight);
  }
}

/** Each table once, in the order of the file. */
async function countTables(context: SnapshotContext, found: ReferenceCounts): Promise<void> {
  const { file, header } = context;
  const { clusterSize } = header.geometry;
  let count = 0;
  for (let at = found.next(0); at !== Infinity; at = found.next(at + 1)) count += 1;
  const l1 = new DataView(new ArrayBuffer(count * 8));
  let index = 0;
  for (let at = found.next(0); at !== Infinity; at = found.next(at + 1)) {
    l1.setUint32(index * 8, Math.floor((at * clusterSize) / 0x1_0000_0000));
    l1.setUint32(index * 8 + 4, (at * clusterSize) % 0x1_0000_0000 >>> 0);
    index += 1;
  }
  const tables = new L2Tables(file, header, l1);
  const fileLength = file.node.length;
  const sweep = new MappingSweep({ ...context, fileLength });
  for (index = 0; index < count; index += 1) {
    const read = tables.read(index);
    const bytes = read instanceof Promise ? await read : read;
    if (bytes === null) continue;
    const offset = tables.offset(index);
    sweep.countTable({ offset, bytes, times: found.get(offset / clusterSize) });
  }
}
