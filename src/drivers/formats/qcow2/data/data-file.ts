// SPDX-License-Identifier: Apache-2.0
// What an erased range gives up in an external data file.
//
// Nothing counts clusters there, and the place of a guest cluster never changes: so its bytes can
// only be discarded as part of the request, with its guest clusters locked. A later write of them
// waits, since it goes to the same place. The entries have changed before, in the same turn.

import { BlockError } from '../../../../base/index.js';
import { discardRequest } from '../../../../block/index.js';
import { EntryKind } from '../entries.js';
import type { Clusters, MetadataStore, Qcow2Image, Table } from '../metadata/index.js';
import type { Span } from './subclusters.js';

/**
 * Ranges (offset and length, in turn) of the whole clusters in `span`, all in the table, that have
 * data; null when there are none. A raw data file holds zeroes there by now.
 */
export function droppedData(
  store: MetadataStore,
  { view }: Table,
  span: Span,
): readonly number[] | null {
  const { image } = store;
  if (!image.hasDataFile || image.dataFileRaw) return null;
  const { clusterSize, data, size } = image;
  const stop = span.end >= size ? data.length : span.end - (span.end % clusterSize);
  const ranges: number[] = [];
  for (let cluster = Math.ceil(span.start / clusterSize); ; cluster += 1) {
    const offset = cluster * clusterSize;
    const length = Math.min(clusterSize, stop - offset, data.length - offset);
    if (length <= 0 || offset >= span.end) break;
    const at = store.entryAt(cluster);
    const kind = image.entryKind(view.getUint32(at), view.getUint32(at + 4));
    if (kind !== EntryKind.data && kind !== EntryKind.zeroAllocated) continue;
    const last = ranges.length - 1;
    const end = last < 0 ? -1 : (ranges[last - 1] ?? 0) + (ranges[last] ?? 0);
    if (end === offset) ranges[last] = (ranges[last] ?? 0) + length;
    else ranges.push(offset, length);
  }
  return ranges.length === 0 ? null : ranges;
}

/** A discard is a hint: one that fails changes nothing. No lock covers the clusters yet. */
export async function discardData(
  image: Qcow2Image,
  ranges: readonly number[],
  { first, end }: Clusters,
): Promise<void> {
  const lock = image.locks.acquire(first, end);
  try {
    for (let index = 0; index < ranges.length; index += 2) {
      await image.data.discard(discardRequest(ranges[index] ?? 0, ranges[index + 1] ?? 0));
    }
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
  } finally {
    image.locks.release(lock);
  }
}
