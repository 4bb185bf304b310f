// SPDX-License-Identifier: Apache-2.0
// Another width of refcounts: new blocks and a new table beside the old ones, with the old ones no
// longer counted in them.
//
// Order: all flushed → new blocks and table behind the end of the file → sync → ONE write of the
// header names them and the width → sync. A power cut leaves the old refcounts or the new ones.

import { BlockError } from '../../../../base/index.js';
import { rebuildRefcounts, ReferenceCounts } from '../check/index.js';
import { geometryOf } from '../layout.js';
import { readRefcount, switchHeader } from '../metadata/index.js';
import type { MetadataStore, Qcow2Image } from '../metadata/index.js';
import type { AmendWork } from './work.js';

/** Kind `invalid-option` where a refcount does not fit, with nothing changed. */
export async function changeRefcountWidth(
  store: MetadataStore,
  order: number,
  work: AmendWork,
): Promise<void> {
  const { flusher } = store;
  await flusher.settle();
  await flusher.exclusive(() => switchWidth(store, order, work));
  try {
    await store.reload();
  } catch (error) {
    // The tables in memory are of the old width.
    store.image.doubt.raise();
    throw error;
  }
}

async function switchWidth(
  store: MetadataStore,
  order: number,
  work: AmendWork,
): Promise<void> {
  const { image } = store;
  const { clusterBits, l2EntryBytes } = image.geometry;
  const geometry = { ...image.geometry, ...geometryOf(clusterBits, order, l2EntryBytes === 16) };
  const { references, structures } = await presentCounts(store, geometry.maxRefcount, work);
  const { length } = image.file;
  try {
    await rebuildRefcounts({
      file: { node: image.file },
      header: { ...image.structures.header, geometry },
      references,
      structures,
      patch: (fields) => switchHeader(image, { ...fields, refcountOrder: order }),
    });
  } catch (error) {
    // Where the header may name what was written, it stays.
    if (!image.corrupt) await shorten(image, length);
    throw error;
  }
  image.geometry = geometry;
}

/** What was written behind the end is nobody's. */
async function shorten(image: Qcow2Image, length: number): Promise<void> {
  try {
    await image.file.truncate(length, { exact: false });
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
  }
}

interface PresentCounts {
  readonly references: ReferenceCounts;
  /** Of the refcount table and its blocks. */
  readonly structures: ReadonlyMap<number, number>;
}

async function presentCounts(
  store: MetadataStore,
  most: number,
  work: AmendWork,
): Promise<PresentCounts> {
  const { image, refcounts } = store;
  const { clusterSize } = image;
  const references = new ReferenceCounts();
  const structures = new Map<number, number>();
  const own = (cluster: number): void => {
    structures.set(cluster, (structures.get(cluster) ?? 0) + 1);
  };
  const tableStart = image.refcountTableOffset / clusterSize;
  const tableClusters = image.refcountTable.length / clusterSize;
  for (let at = 0; at < tableClusters; at += 1) own(tableStart + at);
  const blocks = refcounts.tableEntries;
  for (let index = 0; index < blocks; index += 1) {
    const offset = refcounts.blockOffset(index);
    if (offset === 0) continue;
    own(offset / clusterSize);
    work.step(index, blocks);
    const block = await refcounts.load(index);
    if (block === null) continue;
    const first = index * refcounts.blockEntries;
    countBlock(image, { view: block.view, first, most }, references);
  }
  return { references, structures };
}

function countBlock(
  image: Qcow2Image,
  block: { readonly view: DataView; readonly first: number; readonly most: number },
  references: ReferenceCounts,
): void {
  const { refcountOrder, refcountBlockEntries } = image.geometry;
  for (let index = 0; index < refcountBlockEntries; index += 1) {
    const count = readRefcount(block.view, refcountOrder, index);
    if (count === 0) continue;
    const cluster = block.first + index;
    if (count > block.most) throw tooLarge(cluster * image.clusterSize, count, block.most);
    references.add(cluster, count);
  }
}

function tooLarge(offset: number, count: number, most: number): BlockError {
  const bits = Math.log2(most + 1);
  const place = `Cluster at offset 0x${offset.toString(16)} has a refcount of ${count}`;
  const text = `Cannot decrease refcount entry width to ${bits} bits: ${place}`;
  return new BlockError('invalid-option', text);
}
