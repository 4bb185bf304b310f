// SPDX-License-Identifier: Apache-2.0
// Does the image look as if its clusters were set aside without being written?
//
// Only then is it worth asking the host file for holes inside data clusters: the reference looks
// under the same condition, so that `map` and `convert` see the same zeroes. The image looks so
// when clearly more clusters are counted in use than the host has allocated for the file.

import { BlockError } from '../../../../base/index.js';
import type { Node } from '../../../../block/index.js';
import type { MetadataStore } from '../metadata/index.js';

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
  const { image, refcounts } = store;
  const allocated = allocatedBytes(image.file);
  if (allocated === null) return false;
  const stored = Math.floor(allocated / image.clusterSize);
  const threshold = Math.max(Math.floor((stored * 10) / 9), stored + 2);
  const { tableEntries, blockEntries } = refcounts;
  const inFile = Math.ceil(image.file.length / image.clusterSize);
  const clusters = Math.min(inFile, tableEntries * blockEntries);
  let used = 0;
  for (let cluster = 0; cluster < clusters && used < threshold; ) {
    const block = await refcounts.load(Math.floor(cluster / refcounts.blockEntries));
    const first = cluster - (cluster % refcounts.blockEntries);
    const end = Math.min(clusters, first + refcounts.blockEntries);
    for (; block !== null && cluster < end && used < threshold; cluster += 1) {
      if (refcounts.get(block, cluster % refcounts.blockEntries) !== 0) used += 1;
    }
    if (block === null) cluster = end;
  }
  return used >= threshold;
}

/** Bytes the host has allocated for what stores the node's data; null when that is no file. */
function allocatedBytes(node: Node): number | null {
  for (let at: Node | null = node; at !== null; at = at.primary) {
    const file = at.driverNode.hostFile;
    if (file !== undefined) return file.allocatedBytes();
  }
  return null;
}
