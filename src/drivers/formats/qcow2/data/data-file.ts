// SPDX-License-Identifier: Apache-2.0
// What happens to an external data file that its image has no entries for: space that an erased
// range gives up, and another length of the image.
//
// Nothing counts clusters there, and the place of a guest cluster never changes: so its bytes can
// only be discarded as part of the request, with its guest clusters locked. A later write of them
// waits, since it goes to the same place. The entries have changed before, in the same turn.

import { BlockError } from '../../../../base/index.js';
import { discardRequest, RequestFlag, zeroRequest } from '../../../../block/index.js';
import type { TruncateOptions } from '../../../../block/index.js';
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
  // The entry is not durable yet, and a hole is no zeroes once it is decrypted.
  if (!image.hasDataFile || image.dataFileRaw || image.cipher !== null) return null;
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

export interface DataFileGrowth {
  /** Guest bytes, which are new from `from` on. */
  readonly from: number;
  readonly end: number;
  readonly options: TruncateOptions;
  /** What the file holds there already is what the image shows. */
  readonly shows: boolean;
}

/** Before the image grows: the file gets its length, and zeroes where it held something. */
export async function growDataFile(
  image: Qcow2Image,
  { from, end, options, shows }: DataFileGrowth,
): Promise<void> {
  const { data } = image;
  const { exact, preallocation } = options;
  const stale = Math.min(data.length, end) - from;
  if (preallocation !== 'off' && stale > 0 && !shows) {
    const flags = preallocation === 'metadata' ? RequestFlag.mayUnmap : 0;
    await data.writeZeroes(zeroRequest(from, stale, flags));
  }
  const stop = fileEnd(image, end);
  if (data.length === stop) return;
  const isLonger = data.length > stop || preallocation === 'metadata';
  await data.truncate(stop, { exact, preallocation: isLonger ? 'off' : preallocation });
}

/** With an image of that size: the rest of a cluster stays where it is stored. */
function fileEnd({ data, clusterSize, storesTail }: Qcow2Image, end: number): number {
  const whole = Math.ceil(end / clusterSize) * clusterSize;
  return storesTail ? Math.max(end, Math.min(data.length, whole)) : end;
}

/** After nothing on disk names what lies past the end any more. */
export async function cutDataFile(
  image: Qcow2Image,
  end: number,
  exact: boolean,
): Promise<void> {
  const { data } = image;
  const stop = fileEnd(image, end);
  if (data.length !== stop) await data.truncate(stop, { exact, preallocation: 'off' });
}

/** After nothing on disk names any cluster any more; a hint. */
export async function emptyDataFile({ data }: Qcow2Image): Promise<void> {
  try {
    if (data.length > 0) await data.discard(discardRequest(0, data.length));
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
  }
}
