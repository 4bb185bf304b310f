// SPDX-License-Identifier: Apache-2.0
// New refcounts for an image whose own cannot be mended: made beside the old ones, behind the end
// of the file, from the references that were counted. A file cut short has entries that name what
// is no more: nothing is put there, or it would be read and overwritten as theirs.
//
// Order: blocks and table → sync → the header's first sector names them → sync. A power cut before
// that leaves the image as it was, after it the new refcounts; the mapping is never touched.

import { BlockError, IMAGE_LIMITS } from '../../../../base/index.js';
import { writeRequest } from '../../../../block/index.js';
import type { Child } from '../../../../block/index.js';
import type { ReferenceCounts } from './references.js';
import type { Qcow2Header } from '../header.js';
import { writeRefcount } from '../metadata/index.js';
import type { HeaderPatch } from '../metadata/index.js';

export interface RebuildRequest {
  readonly file: Pick<Child, 'node'>;
  readonly header: Qcow2Header;
  readonly references: ReferenceCounts;
  /** Clusters past the end of the file that are named all the same: they stay free. */
  readonly beyond?: ReferenceCounts;
  /** References of the old refcount table and its blocks, which count no more. */
  readonly structures: ReadonlyMap<number, number>;
  /** Durable when it resolves. */
  patch(patch: HeaderPatch): Promise<void>;
}

export interface RebuiltRefcounts {
  readonly offset: number;
  readonly table: Uint8Array;
}

interface Plan {
  /** First cluster of the new blocks; the table follows them. */
  readonly start: number;
  readonly end: number;
  /** Numbers of the blocks that are needed, in order. */
  readonly indices: readonly number[];
  readonly tableClusters: number;
}

export async function rebuildRefcounts(request: RebuildRequest): Promise<RebuiltRefcounts> {
  const { file, header } = request;
  const { clusterSize } = header.geometry;
  const plan = planBlocks(request);
  const { start, indices, tableClusters } = plan;
  const table = new Uint8Array(tableClusters * clusterSize);
  const view = new DataView(table.buffer);
  for (let at = 0; at < indices.length; at += 1) {
    const index = indices[at] ?? 0;
    const place = (start + at) * clusterSize;
    view.setUint32(index * 8, Math.floor(place / 0x1_0000_0000));
    view.setUint32(index * 8 + 4, place % 0x1_0000_0000);
    await file.node.write(writeRequest(place, makeBlock(request, plan, index)));
  }
  const offset = (start + indices.length) * clusterSize;
  await file.node.write(writeRequest(offset, table));
  await file.node.flush();
  await request.patch({ refcountTableOffset: offset, refcountTableClusters: tableClusters });
  return { offset, table };
}

/** The new blocks count themselves, for which more of them may be needed. */
function planBlocks(request: RebuildRequest): Plan {
  const { file, header } = request;
  const { clusterSize, refcountBlockEntries } = header.geometry;
  const counted = blocksOfKept(request);
  let start = Math.ceil(file.node.length / clusterSize);
  let needed = new Set(counted);
  for (;;) {
    const last = largest(needed);
    const tableClusters = Math.ceil(((last + 1) * 8) / clusterSize);
    if (tableClusters * clusterSize > IMAGE_LIMITS.qcow2RefcountTableBytes) throw tooLarge();
    const end = start + needed.size + tableClusters;
    const taken = nextTaken(request, start);
    if (taken < end) {
      start = taken + 1;
      needed = new Set(counted);
      continue;
    }
    const before = needed.size;
    for (let at = start; at < end; at += 1) needed.add(Math.floor(at / refcountBlockEntries));
    if (needed.size === before) {
      return { start, end, indices: [...needed].toSorted((a, b) => a - b), tableClusters };
    }
  }
}

/** Numbers of the blocks with clusters that stay in use. */
function blocksOfKept({ header, references, structures }: RebuildRequest): Set<number> {
  const { refcountBlockEntries } = header.geometry;
  const needed = new Set<number>();
  for (let at = references.next(0); at !== Infinity; at = references.next(at + 1)) {
    if (references.get(at) <= (structures.get(at) ?? 0)) continue;
    needed.add(Math.floor(at / refcountBlockEntries));
    if (needed.size * 8 > IMAGE_LIMITS.qcow2RefcountTableBytes) throw tooLarge();
  }
  return needed;
}

/** The first cluster from `from` on that something names, though the file may end before it. */
function nextTaken({ references, beyond }: RebuildRequest, from: number): number {
  return Math.min(references.next(from), beyond?.next(from) ?? Infinity);
}

function largest(numbers: Iterable<number>): number {
  let most = 0;
  for (const number of numbers) most = Math.max(most, number);
  return most;
}

function makeBlock(request: RebuildRequest, plan: Plan, index: number): Uint8Array {
  const { geometry } = request.header;
  const { refcountBlockEntries, refcountOrder, maxRefcount } = geometry;
  const bytes = new Uint8Array(geometry.clusterSize);
  const view = new DataView(bytes.buffer);
  const first = index * refcountBlockEntries;
  for (let at = first; at < first + refcountBlockEntries; at += 1) {
    const isNew = at >= plan.start && at < plan.end;
    const counted = request.references.get(at) - (request.structures.get(at) ?? 0);
    const value = isNew ? 1 : counted;
    if (value === 0) continue;
    if (value > maxRefcount) {
      const text = `Cluster ${at} has ${value} references, refcounts reach to ${maxRefcount}`;
      throw new BlockError('corrupt-image', text);
    }
    writeRefcount(view, { order: refcountOrder, index: at - first }, value);
  }
  return bytes;
}

function tooLarge(): BlockError {
  return new BlockError('too-large', 'The rebuilt refcount table would exceed 8 MiB');
}
