// SPDX-License-Identifier: Apache-2.0
// Internal snapshots of one image: create, delete, apply, show.
//
// Each moves refcounts of linked clusters between one and more, which in place would have moments
// that a check calls errors. So nothing that is in use is changed: new L1 and L2 tables, refcount
// blocks, refcount table and snapshot table are written to free clusters, and with them durable
// ONE write of the header's first sector switches to all of them. A power cut leaves the image as
// it was or as it is going to be, with nothing leaked; what fails before that write is undone.
// No guest request runs meanwhile (callers drain), and no flush: it is exclusive work.

import { BlockError, IMAGE_LIMITS } from '../../../../base/index.js';
import { discardRequest } from '../../../../block/index.js';
import type { InternalSnapshots, NewSnapshot, SnapshotFacts } from '../../../../block/index.js';
import { l1EntriesFor } from '../layout.js';
import { guardInactiveL2 } from './inactive-tables.js';
import { switchHeader } from '../metadata/index.js';
import type { MetadataStore, Qcow2Image } from '../metadata/index.js';
import {
  bits64Of,
  encodeSnapshotTable,
  factsOf,
  keyOf,
  nanoseconds,
  NO_ICOUNT,
} from '../snapshot-table.js';
import type { Snapshot } from '../snapshot-table.js';
import { countMapping, reflag } from './mapping.js';
import type { SweepContext } from './mapping.js';
import { NewBytes } from './new-bytes.js';
import { NextRefcounts } from './next-refcounts.js';

/** What the image is going to be besides its refcounts. */
interface NextState {
  readonly snapshots: readonly Snapshot[];
  readonly l1: Uint8Array;
  readonly size: number;
}

export interface SnapshotHooks {
  /** Due before the first change. */
  becameWritable(): Promise<void>;
  /** Everything that was read before may be stale. */
  changed(): void;
  /** Throws where bitmaps would not tell what applying a snapshot changes. */
  requireApplicable(): void;
}

export class Qcow2Snapshots implements InternalSnapshots {
  readonly #store: MetadataStore;
  readonly #image: Qcow2Image;
  readonly #hooks: SnapshotHooks;

  constructor(store: MetadataStore, hooks: SnapshotHooks) {
    this.#store = store;
    this.#image = store.image;
    this.#hooks = hooks;
  }

  get isRefused(): boolean {
    return this.#image.hasDataFile;
  }

  get count(): number {
    return this.#image.snapshots.snapshots.length;
  }

  list(from?: number, end?: number): readonly SnapshotFacts[] {
    return this.#image.snapshots.snapshots.slice(from, end).map(factsOf);
  }

  /** What a data file holds cannot be held twice. */
  #refuseDataFile(): void {
    if (!this.#image.hasDataFile) return;
    throw new BlockError('unsupported', 'Operation not supported', { node: this.#image.name });
  }

  async create(wish: NewSnapshot): Promise<SnapshotFacts> {
    this.#refuseDataFile();
    const present = this.#image.snapshots.snapshots;
    if (present.length >= IMAGE_LIMITS.qcow2Snapshots) {
      const most = IMAGE_LIMITS.qcow2Snapshots;
      const text = `${this.#image.label}: there are ${most} snapshots already`;
      throw new BlockError('too-large', text, { errno: 'EFBIG' });
    }
    const id = nextId(present);
    await this.#switch(async (sweep) => {
      const { image } = sweep;
      await countMapping(sweep, image.l1, 1);
      const l1 = await reflag(sweep, image.l1, 2);
      const l1Offset = await this.#place(sweep, l1);
      const created = makeSnapshot(wish, { id, l1Offset, image });
      return { snapshots: [...present, created], l1, size: image.size };
    });
    return factsOf(this.#image.snapshots.snapshots[present.length] as Snapshot);
  }

  async remove(facts: Pick<SnapshotFacts, 'id' | 'name'>): Promise<void> {
    this.#refuseDataFile();
    const found = this.#find(facts);
    await this.#switch(async (sweep) => {
      const { image, next } = sweep;
      await countMapping(sweep, await this.#readL1(found), -1);
      await next.changeRun(found.l1Offset, found.l1Entries * 8, -1);
      const l1 = await reflag(sweep, image.l1, 1);
      const snapshots = image.snapshots.snapshots.filter((snapshot) => snapshot !== found);
      return { snapshots, l1, size: image.size };
    });
  }

  async apply(facts: Pick<SnapshotFacts, 'id' | 'name'>): Promise<void> {
    this.#refuseDataFile();
    this.#hooks.requireApplicable();
    const found = this.#find(facts);
    const size = found.diskSize ?? this.#image.size;
    const entries = this.#entriesFor(size);
    await this.#switch(async (sweep) => {
      const { image } = sweep;
      const stored = await this.#readL1(found);
      const l1 = new Uint8Array(Math.max(entries * 8, stored.length));
      l1.set(stored);
      await countMapping(sweep, image.l1, -1);
      await countMapping(sweep, stored, 1);
      return { snapshots: image.snapshots.snapshots, l1: await reflag(sweep, l1, 1), size };
    });
  }

  async show(facts: Pick<SnapshotFacts, 'id' | 'name'>): Promise<void> {
    this.#refuseDataFile();
    const image = this.#image;
    const l1 = await this.#readL1(this.#find(facts));
    image.l2.clear();
    // The size stays what it is now, as the reference has it.
    image.replaceL1(image.l1Offset, l1);
    image.overlaps.rebuild();
    this.#hooks.changed();
  }

  #find(wanted: Pick<SnapshotFacts, 'id' | 'name'>): Snapshot {
    const found = this.#image.snapshots.snapshots.find((snapshot) => {
      const { id, name } = keyOf(snapshot);
      return id === wanted.id && name === wanted.name;
    });
    if (found !== undefined) return found;
    throw new BlockError('not-found', "Can't find the snapshot", { errno: 'ENOENT' });
  }

  #entriesFor(size: number): number {
    const { label, geometry } = this.#image;
    const entries = l1EntriesFor(size, geometry);
    if (size % 512 === 0 && entries * 8 <= IMAGE_LIMITS.qcow2L1Bytes) return entries;
    const text = `${label}: snapshot has an invalid disk size (disk_size ${size})`;
    throw new BlockError('corrupt-image', text, { errno: 'EINVAL' });
  }

  async #readL1({ l1Offset, l1Entries }: Snapshot): Promise<Uint8Array> {
    const image = this.#image;
    const length = l1Entries * 8;
    if (length > IMAGE_LIMITS.qcow2L1Bytes) {
      const text = `Snapshot L1 table too large (l1_size ${l1Entries})`;
      throw new BlockError('corrupt-image', text, { errno: 'EFBIG' });
    }
    if (l1Offset % image.clusterSize !== 0 || l1Offset + length > image.file.length) {
      const text = `Snapshot L1 table offset invalid (l1_table_offset ${l1Offset})`;
      throw new BlockError('corrupt-image', text, { errno: 'EINVAL' });
    }
    const bytes = new Uint8Array(length);
    await image.readFile(l1Offset, bytes);
    return bytes;
  }

  /** All new structures, then the header, then what nothing uses any more. */
  async #switch(plan: (sweep: SweepContext) => Promise<NextState>): Promise<void> {
    const image = this.#image;
    const { flusher } = this.#store;
    await image.doubt.regain();
    image.assertWritable();
    if (this.isRefused) {
      const text = `${image.label}: snapshots are not supported with an external data file`;
      throw new BlockError('unsupported', text, { node: image.name });
    }
    await this.#hooks.becameWritable();
    let isDone = false;
    while (!isDone) {
      await flusher.flushAll();
      // What was freed meanwhile goes out first: the caches are dropped in the end.
      isDone = await flusher.exclusive(async () => {
        if (!flusher.isClean) return false;
        await this.#performSwitch(plan);
        return true;
      });
    }
  }

  async #performSwitch(plan: (sweep: SweepContext) => Promise<NextState>): Promise<void> {
    const image = this.#image;
    const next = new NextRefcounts(this.#store);
    const output = new NewBytes(image);
    try {
      await this.#write({ image, next, output }, plan);
    } catch (error) {
      // Where the header may name what was written, it stays.
      if (!image.corrupt) await output.undo();
      throw error;
    }
    this.#store.allocator.reset();
    image.freedCount += 1;
    this.#hooks.changed();
    await guardAnew(image);
    if (image.policies.passDiscardSnapshot) await punch(image, next);
  }

  async #write(
    sweep: SweepContext,
    plan: (sweep: SweepContext) => Promise<NextState>,
  ): Promise<void> {
    const { image, next, output } = sweep;
    const state = await plan(sweep);
    const stays = Buffer.compare(state.l1, image.l1) === 0;
    const l1Offset = stays ? image.l1Offset : await this.#place(sweep, state.l1);
    if (!stays) await next.changeRun(image.l1Offset, image.l1.length, -1);
    const listed = await this.#placeList(sweep, state);
    const table = await next.settle();
    await next.write(output);
    await output.add(table.offset, table.bytes);
    await output.flush();
    await image.sync();
    await switchHeader(image, {
      size: state.size,
      l1Offset,
      l1Entries: state.l1.length / 8,
      refcountTableOffset: table.offset,
      refcountTableClusters: table.bytes.length / image.clusterSize,
      nbSnapshots: state.snapshots.length,
      snapshotsOffset: listed.offset,
    });
    image.size = state.size;
    image.adopt({
      l1Offset,
      l1: state.l1,
      refcountTableOffset: table.offset,
      refcountTable: table.bytes,
      snapshots: { ...listed, snapshots: state.snapshots },
    });
  }

  async #placeList(
    sweep: SweepContext,
    { snapshots }: NextState,
  ): Promise<{ readonly offset: number; readonly length: number }> {
    const { image, next } = sweep;
    const { version, snapshots: old } = image;
    if (snapshots === old.snapshots) return { offset: old.offset, length: old.length };
    await next.changeRun(old.offset, old.length, -1);
    const bytes = encodeSnapshotTable(snapshots, { version, size: image.size });
    return { offset: await this.#place(sweep, bytes), length: bytes.length };
  }

  /** Writes a table to clusters of its own; gives their offset, 0 where it is empty. */
  async #place({ image, next, output }: SweepContext, bytes: Uint8Array): Promise<number> {
    if (bytes.length === 0) return 0;
    const offset = await next.take(Math.ceil(bytes.length / image.clusterSize));
    await output.addTable(offset, bytes);
    return offset;
  }
}

/** The switch is done: where the tables cannot be read they are not guarded until a reopen. */
async function guardAnew(image: Qcow2Image): Promise<void> {
  try {
    await guardInactiveL2(image, image.policies.guarded);
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
    image.overlaps.setInactiveL2(new Float64Array(0));
  }
}

/** A hint to the host: it may fail. */
async function punch(image: Qcow2Image, next: NextRefcounts): Promise<void> {
  const { file } = image;
  try {
    for (const { offset, length } of next.freed()) {
      const there = Math.min(length, file.length - offset);
      if (there > 0) await file.discard(discardRequest(offset, there));
    }
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
  }
}

/** One more than the largest number that an ID begins with. */
function nextId(snapshots: readonly Snapshot[]): string {
  let largest = 0n;
  for (const snapshot of snapshots) {
    const digits = /^\s*\d{1,20}/.exec(keyOf(snapshot).id)?.[0];
    const number = digits === undefined ? 0n : BigInt(digits.trim());
    if (number > largest) largest = number;
  }
  return String(largest + 1n);
}

function makeSnapshot(
  wish: NewSnapshot,
  place: { readonly id: string; readonly l1Offset: number; readonly image: Qcow2Image },
): Snapshot {
  const { image } = place;
  return {
    l1Offset: place.l1Offset,
    l1Entries: image.l1.length / 8,
    id: Buffer.from(place.id),
    name: Buffer.from(wish.name),
    dateSeconds: wish.dateSeconds,
    dateNanoseconds: wish.dateNanoseconds,
    vmClock: nanoseconds(wish.vmClockSeconds, wish.vmClockNanoseconds),
    vmStateSize: 0,
    diskSize: image.size,
    icount: wish.icount === undefined ? NO_ICOUNT : bits64Of(wish.icount),
    extraBytes: 24,
    unknownExtra: new Uint8Array(0),
  };
}
