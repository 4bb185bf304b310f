// SPDX-License-Identifier: Apache-2.0
// Host clusters for a range of guest clusters that holds nothing yet, linked as data of zeroes; in
// encrypted images, where zeroes of the file are none to the guest, as zeroes with a place.
//
// A cluster is made to read as zeroes before its entry names it: one that was in use before holds
// old bytes. `full` writes the zeroes out, `falloc` asks the host for the space at the file's end.

import { QCOW2_LIMITS, settleFinally } from '../../../../base/index.js';
import { zeroRequest } from '../../../../block/index.js';
import type { TruncateOptions } from '../../../../block/index.js';
import { EntryKind, entryIn, entryLo, ownedEntry } from '../entries.js';
import type { ClusterRun, MetadataStore, Table } from '../metadata/index.js';

export interface PreallocationRange {
  /** Guest bytes, whole clusters at the start. */
  readonly offset: number;
  readonly end: number;
  readonly mode: Exclude<TruncateOptions['preallocation'], 'off'>;
}

/** Entries stay linked when it fails halfway; they read as zeroes. */
export async function preallocate(store: MetadataStore, range: PreallocationRange): Promise<void> {
  const { clusterSize, geometry } = store.image;
  const lease = store.image.leases.enter();
  await settleFinally(
    async () => {
      const last = Math.ceil(range.end / clusterSize);
      const inPieces = Math.max(1, Math.floor(QCOW2_LIMITS.zeroWriteBytes / clusterSize));
      const most = range.mode === 'full' ? inPieces : geometry.l2Entries;
      for (let cluster = range.offset / clusterSize; cluster < last; ) {
        const room = store.makeRoom();
        if (room !== undefined) await room;
        const run = store.takeData(cluster, Math.min(last - cluster, most));
        if (run instanceof Promise) {
          await run;
          continue;
        }
        // A data file got its space and its zeroes before.
        if (!store.image.hasDataFile) await fill(store, run, range.mode);
        await link(store, run, { first: cluster, keepsZero: range.mode === 'metadata' });
        cluster += run.clusters;
      }
    },
    () => store.image.leases.leave(lease),
  );
}

async function fill(
  store: MetadataStore,
  run: ClusterRun,
  mode: PreallocationRange['mode'],
): Promise<void> {
  const { image, refcounts } = store;
  const { file, clusterSize } = image;
  const length = run.clusters * clusterSize;
  try {
    if (mode === 'full') {
      await image.writeFile(run.offset, new Uint8Array(length));
      return;
    }
    // Past the end of the file all is zeroes. A byte makes it longer, never shorter.
    const inside = Math.min(length, Math.max(0, file.length - run.offset));
    if (inside < length) await image.writeFile(run.offset + length - 1, new Uint8Array(1));
    const zeroed = mode === 'falloc' ? length : inside;
    if (zeroed > 0) await file.writeZeroes(zeroRequest(run.offset, zeroed, 0));
  } catch (error) {
    refcounts.undo(run.offset, run.clusters);
    throw error;
  }
}

interface Linked {
  /** Number of the first guest cluster. */
  readonly first: number;
  /** Entries that read as zeroes go on saying so. */
  readonly keepsZero: boolean;
}

interface LinkedOne {
  readonly cluster: number;
  readonly hostOffset: number;
  readonly keepsZero: boolean;
}

/** Clusters that could not be linked are free again. */
async function link(store: MetadataStore, run: ClusterRun, entries: Linked): Promise<void> {
  const { clusterSize } = store.image;
  const { first, keepsZero } = entries;
  let done = 0;
  try {
    while (done < run.clusters) {
      const table = store.forWriting((first + done) * clusterSize);
      if (table instanceof Promise) {
        await table;
        continue;
      }
      if (table === undefined) continue;
      const hostOffset = run.offset + done * clusterSize;
      linkOne(store, table, { cluster: first + done, hostOffset, keepsZero });
      done += 1;
    }
  } catch (error) {
    store.undoData(run.offset + done * clusterSize, run.clusters - done);
    throw error;
  }
}

function linkOne(
  store: MetadataStore,
  table: Table,
  { cluster, hostOffset, keepsZero }: LinkedOne,
): void {
  const { geometry } = store.image;
  // As the reference leaves them: a place, and zeroes or not as before.
  const before = entryIn(table.view, store.entryAt(cluster), geometry);
  let entry = ownedEntry(hostOffset);
  if (geometry.subclustersPerCluster > 1) {
    entry = { ...entry, zeroes: before.zeroes, allocated: 0 };
  } else {
    const isZero = store.image.entryKind(before.hi, before.lo) === EntryKind.zero;
    const says = store.image.cipher !== null || (keepsZero && isZero);
    if (says) entry = { ...entry, lo: entryLo(hostOffset, true) };
  }
  store.replaceEntry(table, cluster, { entry, punch: false });
}
