// SPDX-License-Identifier: Apache-2.0
// Does the image look as if its clusters were set aside without being written?
//
// Only then is it worth asking the host file for holes inside data clusters: the reference looks
// under the same condition, so that `map` and `convert` see the same zeroes. The image looks so
// when clearly more clusters are counted in use than the host has allocated for the file.
//
// Unlike the reference, this program leaves the rest of a cluster that was written in part, and
// empty tables, as holes. So bytes allocated are too few in its own images: there the clusters
// that hold any data are counted, with those of the top tables, and `map` tells of whole ones.

import { BlockError } from '../../../../base/index.js';
import type { Eventually } from '../../../../base/index.js';
import { dataSpan } from '../../../../block/index.js';
import { allocatedBytes } from '../hole-reads.js';
import type { MetadataStore, Qcow2Image } from '../metadata/index.js';

export async function looksPreallocated(store: MetadataStore): Promise<boolean> {
  try {
    return await countsPreallocated(store);
  } catch (error) {
    // Refcounts that cannot be read say nothing, and nobody who only reads needs them.
    if (error instanceof BlockError && error.kind === 'corrupt-image') return false;
    throw error;
  }
}

async function countsPreallocated(store: MetadataStore): Promise<boolean> {
  const { image } = store;
  const allocated = allocatedBytes(image.file);
  if (allocated === null) return false;
  const enough = clearlyMoreThan(Math.floor(allocated / image.clusterSize));
  if ((await clustersInUse(store, enough)) < enough) return false;
  const tables = Math.ceil((image.l1.length + image.refcountTable.length) / image.clusterSize);
  const stillEnough = clearlyMoreThan(await clustersWithData(image)) + tables;
  return (await clustersInUse(store, stillEnough)) >= stillEnough;
}

function clearlyMoreThan(clusters: number): number {
  return Math.max(Math.floor((clusters * 10) / 9), clusters + 2);
}

/** Counts up to `limit`. */
async function clustersInUse({ image, refcounts }: MetadataStore, limit: number): Promise<number> {
  const { tableEntries, blockEntries } = refcounts;
  const inFile = Math.ceil(image.file.length / image.clusterSize);
  const clusters = Math.min(inFile, tableEntries * blockEntries);
  let used = 0;
  for (let cluster = 0; cluster < clusters && used < limit; ) {
    const block = await refcounts.load(Math.floor(cluster / refcounts.blockEntries));
    const first = cluster - (cluster % refcounts.blockEntries);
    const end = Math.min(clusters, first + refcounts.blockEntries);
    for (; block !== null && cluster < end && used < limit; cluster += 1) {
      if (refcounts.get(block, cluster % refcounts.blockEntries) !== 0) used += 1;
    }
    if (block === null) cluster = end;
  }
  return used;
}

/** Clusters of the file in which at least one byte is no hole. */
function clustersWithData(image: Qcow2Image): Eventually<number> {
  const { file, clusterSize } = image;
  const end = file.length;
  let at = 0;
  let counted = 0;
  let found = 0;
  const add = (span: number): void => {
    const next = at + Math.abs(span);
    if (span > 0) {
      const first = Math.max(counted, Math.floor(at / clusterSize));
      counted = Math.ceil(next / clusterSize);
      found += counted - first;
    }
    at = next;
  };
  const walk = (): Eventually<number> => {
    while (at < end) {
      const span = dataSpan(file, at, end - at);
      if (span instanceof Promise) return span.then(add).then(walk);
      add(span);
    }
    return found;
  };
  return walk();
}
