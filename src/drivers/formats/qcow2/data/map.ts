// SPDX-License-Identifier: Apache-2.0
// Where guest bytes are: block status of this layer, and extents lowered to host files for lanes.
//
// Compressed clusters lower to the bytes of their stream; what lies past the end of the file reads
// as zeroes. What is encrypted is told without its place: nobody may read it from there. Lowering
// gives up (null) as soon as the file child cannot name the host file.

import { settle } from '../../../../base/index.js';
import type { Eventually } from '../../../../base/index.js';
import { dataSpan, encryptedExtents, NOT_STORED, StatusFlag } from '../../../../block/index.js';
import type { BlockStatus, Extent, StatusRuns } from '../../../../block/index.js';
import type { HostFile } from '../../../../host/index.js';
import { EntryKind } from '../entries.js';
import type { DataPlace, MetadataStore, Qcow2Image, Table } from '../metadata/index.js';
import { addDataRuns } from './data-runs.js';
import { EmptyTables } from './empty-tables.js';
import { RunPlan } from './plan.js';
import { looksPreallocated } from './preallocated.js';
import { requireOwnTables } from './shared-tables.js';

/** L2 tables that one answer looks at. */
const JOINED_TABLES = 16;

export class Mapper {
  readonly #store: MetadataStore;
  readonly #image: Qcow2Image;
  readonly #plan: RunPlan;
  readonly #emptyTables: EmptyTables;
  /** Data clusters may be holes of the file; null until an exact status asked for it. */
  #mayHaveHoles: boolean | null = null;

  constructor(store: MetadataStore) {
    this.#store = store;
    this.#image = store.image;
    this.#plan = new RunPlan(store.image);
    this.#emptyTables = new EmptyTables(store.image);
  }

  blockStatus(offset: number, length: number, exact: boolean): Eventually<BlockStatus> {
    if (exact && this.#mayHaveHoles === null) {
      return this.#lookForHoles().then(() => this.blockStatus(offset, length, exact));
    }
    const table = this.#table(offset);
    if (table instanceof Promise) return table.then(() => this.blockStatus(offset, length, exact));
    const plan = this.#plan;
    plan.find(table, offset, length);
    const status = this.#describe(plan);
    if (plan.kind !== EntryKind.unallocated || plan.length === length) return status;
    return { ...status, length: this.#unallocatedLength(offset, length) };
  }

  /** The same of many runs; a failure shows when nothing is left before it. */
  statusRuns(offset: number, length: number, runs: StatusRuns): Eventually<void> {
    if (runs.exact && this.#mayHaveHoles === null) {
      return this.#lookForHoles().then(() => this.statusRuns(offset, length, runs));
    }
    runs.file = this.#image.data;
    const end = offset + length;
    for (let at = offset; at < end && !runs.isFull; ) {
      let next: Eventually<number>;
      try {
        next = this.#addRun(at, end, runs);
      } catch (error) {
        if (runs.count > 0) return undefined;
        throw error;
      }
      if (next instanceof Promise) {
        if (runs.count === 0) {
          return next.then((to) => (to === at ? this.statusRuns(at, end - at, runs) : undefined));
        }
        // Whoever asks from there on meets a failure again.
        next.catch(() => undefined);
        return undefined;
      }
      if (next === at) return undefined;
      at = next;
    }
    return undefined;
  }

  /**
   * Gives the end of what it added, which is `at` where that has to be waited for while there are
   * runs already; a promise of `at`: ask again.
   */
  #addRun(at: number, end: number, runs: StatusRuns): Eventually<number> {
    const table = this.#table(at);
    if (table instanceof Promise) return table.then(() => at);
    const holes = runs.exact && this.#mayHaveHoles === true;
    const reached = addDataRuns({ image: this.#image, table, holes }, { at, end }, runs);
    if (reached > at || runs.isFull) return reached;
    const plan = this.#plan;
    plan.find(table, at, end - at);
    const { length, kind, hostOffset } = plan;
    let flags: number = StatusFlag.allocated;
    let stored = NOT_STORED;
    switch (kind) {
      case EntryKind.data:
        if (holes) return this.#addSpans(at, runs);
        flags |= StatusFlag.data;
        stored = hostOffset;
        break;
      case EntryKind.zeroAllocated:
        flags |= StatusFlag.zero;
        stored = hostOffset;
        break;
      case EntryKind.compressed:
        flags |= StatusFlag.data | StatusFlag.compressed;
        break;
      case EntryKind.zero:
        flags |= StatusFlag.zero;
        break;
      default:
        flags = this.#image.backing === null ? StatusFlag.zero : 0;
        if (kind === EntryKind.hosted) stored = hostOffset;
    }
    runs.add(length, flags, this.#image.cipher === null ? stored : NOT_STORED);
    return at + length;
  }

  /** The run that the plan found, part by part as the file has data and holes there. */
  #addSpans(at: number, runs: StatusRuns): Eventually<number> {
    const { length, hostOffset } = this.#plan;
    const { data: file } = this.#image;
    for (let done = 0; done < length; ) {
      if (runs.isFull) return at + done;
      const span = dataSpan(file, hostOffset + done, length - done);
      if (span instanceof Promise) {
        if (runs.count > 0) {
          span.catch(() => undefined);
          return at + done;
        }
        return span.then((bytes) => {
          this.#addSpan(bytes, hostOffset, runs);
          return at + Math.abs(bytes);
        });
      }
      this.#addSpan(span, hostOffset + done, runs);
      done += Math.abs(span);
    }
    return at + length;
  }

  #addSpan(span: number, hostOffset: number, runs: StatusRuns): void {
    const stored = StatusFlag.allocated | StatusFlag.data;
    runs.add(Math.abs(span), span < 0 ? stored | StatusFlag.zero : stored, hostOffset);
  }

  /**
   * How far nothing is allocated from `offset`, as long as the tables are there. Not too far: who
   * asks again a cluster later must not have all of the rest looked at each time.
   */
  #unallocatedLength(offset: number, length: number): number {
    const plan = this.#plan;
    let found = plan.length;
    for (let tables = 1; found < length && tables < JOINED_TABLES; tables += 1) {
      const table = this.#table(offset + found);
      if (table instanceof Promise) {
        // Nobody waits for it here: a failure shows again to whoever asks for that offset.
        table.catch(() => undefined);
        break;
      }
      plan.find(table, offset + found, length - found);
      if (plan.kind !== EntryKind.unallocated) break;
      found += plan.length;
    }
    return found;
  }

  #table(guestOffset: number): Table | null | Promise<Table> {
    if (this.#emptyTables.has(guestOffset)) return null;
    const table = this.#store.lookup(guestOffset);
    if (table !== null && !(table instanceof Promise)) {
      this.#emptyTables.wasRead(table, guestOffset);
    }
    return table;
  }

  planExtents(offset: number, length: number): Eventually<readonly Extent[] | null> {
    return this.#planFrom([], offset, offset + length);
  }

  /** Goes on where something had to be waited for: as long as nothing has, in one turn. */
  #planFrom(extents: Extent[], start: number, end: number): Eventually<Extent[] | null> {
    for (let at = start; at < end; ) {
      const table = this.#table(at);
      if (table instanceof Promise) return table.then(() => this.#planFrom(extents, at, end));
      this.#plan.find(table, at, end - at);
      const next = at + this.#plan.length;
      const lowered = this.#lower(at);
      if (lowered instanceof Promise) {
        return lowered.then((parts) =>
          appendAll(extents, parts) ? this.#planFrom(extents, next, end) : null,
        );
      }
      if (!appendAll(extents, lowered)) return null;
      at = next;
    }
    return extents;
  }

  /** Before the first exact status. */
  async #lookForHoles(): Promise<void> {
    requireOwnTables(this.#image);
    // A hole of the file is no zeroes once it is decrypted.
    this.#mayHaveHoles = this.#image.cipher === null && (await looksPreallocated(this.#store));
  }

  #describe(plan: RunPlan): BlockStatus {
    const { length, kind } = plan;
    const allocated = kind !== EntryKind.unallocated && kind !== EntryKind.hosted;
    const compressed = kind === EntryKind.compressed;
    if (this.#image.cipher !== null) return this.#describeHidden(plan, allocated);
    if (kind === EntryKind.data || kind === EntryKind.zeroAllocated) {
      const zero = kind === EntryKind.zeroAllocated;
      const { hostOffset } = plan;
      const { data: file } = this.#image;
      if (zero) return { length, allocated, data: false, zero, compressed, hostOffset, file };
      const recurse = this.#mayHaveHoles === true;
      return { length, allocated, data: true, zero, compressed, hostOffset, file, recurse };
    }
    const zero = kind === EntryKind.zero || (!allocated && this.#image.backing === null);
    if (kind === EntryKind.hosted) {
      const { hostOffset } = plan;
      const { data: file } = this.#image;
      return { length, allocated, data: false, zero, compressed, hostOffset, file };
    }
    return { length, allocated, data: compressed, zero, compressed };
  }

  #describeHidden({ length, kind }: RunPlan, allocated: boolean): BlockStatus {
    const compressed = kind === EntryKind.compressed;
    const data = compressed || kind === EntryKind.data;
    const zero = allocated ? !data : this.#image.backing === null;
    return { length, allocated, data, zero, compressed };
  }

  #lower(at: number): Eventually<readonly Extent[] | null> {
    const { kind, length, hostOffset, compressedLength } = this.#plan;
    switch (kind) {
      case EntryKind.unallocated:
      case EntryKind.hosted:
        return [{ kind: 'backing', length }];
      case EntryKind.data:
        return this.#lowerData({ hostOffset, guestOffset: at }, length);
      case EntryKind.compressed: {
        const skip = at % this.#image.clusterSize;
        return this.#lowerCompressed({ hostOffset, compressedLength }, { skip, length });
      }
      default:
        return [{ kind: 'zero', length }];
    }
  }

  #lowerData(place: DataPlace, length: number): Eventually<readonly Extent[] | null> {
    const { cipher } = this.#image;
    const stored = this.#lowerStored(place.hostOffset, length);
    if (cipher === null) return stored;
    return settle(stored, (extents) => {
      return extents === null ? null : encryptedExtents(extents, cipher.rangeAt(place));
    });
  }

  #lowerStored(hostOffset: number, length: number): Eventually<readonly Extent[] | null> {
    const { data: file } = this.#image;
    const there = Math.min(length, Math.max(0, file.length - hostOffset));
    if (there === 0) return [{ kind: 'zero', length }];
    return settle(file.planExtents(hostOffset, there), (extents) => {
      if (extents === null || extents.some((extent) => extent.kind === 'backing')) return null;
      return there === length ? extents : [...extents, { kind: 'zero', length: length - there }];
    });
  }

  #lowerCompressed(
    stored: { readonly hostOffset: number; readonly compressedLength: number },
    part: { readonly skip: number; readonly length: number },
  ): Eventually<readonly Extent[] | null> {
    const { file, clusterSize } = this.#image;
    const there = Math.min(stored.compressedLength, file.length - stored.hostOffset);
    if (there <= 0) return null;
    return settle(file.planExtents(stored.hostOffset, there), (extents) => {
      const holesAreThere = file.driverNode.hostFile !== undefined;
      const place = extents === null ? null : onePlace(extents, holesAreThere);
      if (place === null) return null;
      return [
        {
          kind: 'compressed',
          codec: this.#image.codec,
          ...place,
          compressedLength: there,
          inflatedLength: clusterSize,
          skip: part.skip,
          length: part.length,
        },
      ];
    });
  }
}

/**
 * Where the host has plain data in one stretch, in however many parts that was told; or null. The
 * end of a cluster's last sector may never have been written: a hole, which a host file can read.
 */
function onePlace(
  extents: readonly Extent[],
  holesAreThere: boolean,
): { readonly file: HostFile; readonly hostOffset: number } | null {
  const [first] = extents;
  if (first?.kind !== 'data') return null;
  let end = first.hostOffset;
  for (const extent of extents) {
    const isHole = extent.kind === 'zero' && holesAreThere;
    if (!isHole) {
      if (extent.kind !== 'data' || extent.cipher !== undefined) return null;
      if (extent.file !== first.file || extent.hostOffset !== end) return null;
    }
    end += extent.length;
  }
  return { file: first.file, hostOffset: first.hostOffset };
}

/** Whether there was anything to add: null ends the plan. */
function appendAll(extents: Extent[], parts: readonly Extent[] | null): boolean {
  if (parts === null) return false;
  for (const part of parts) append(extents, part);
  return true;
}

/** Joins what follows on. */
function append(extents: Extent[], next: Extent): void {
  const last = extents[extents.length - 1];
  if (last !== undefined && last.kind === next.kind) {
    if (last.kind === 'zero' || last.kind === 'backing') {
      extents[extents.length - 1] = { kind: last.kind, length: last.length + next.length };
      return;
    }
    if (last.kind === 'data' && next.kind === 'data' && last.file === next.file) {
      if (last.hostOffset + last.length === next.hostOffset) {
        extents[extents.length - 1] = { ...last, length: last.length + next.length };
        return;
      }
    }
  }
  extents.push(next);
}
