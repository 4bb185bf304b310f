// SPDX-License-Identifier: Apache-2.0
// The table of internal snapshots: one record for each entry, read and written as a whole.
//
// Source: the qcow2 format description ("Snapshots"). Entries have no index: they are read one
// after another in large pieces, each length compared with its limit and with the end of the file
// first. What a record does not understand of its extra data is kept when the table is rewritten.

import {
  BlockError,
  decodeStruct,
  encodeStruct,
  IMAGE_LIMITS,
  NO_BITS,
} from '../../../base/index.js';
import type { Bits64 } from '../../../base/index.js';
import { readRequest } from '../../../block/index.js';
import type { Node, SnapshotFacts } from '../../../block/index.js';
import type { Qcow2Header } from './header.js';
import { SNAPSHOT_ENTRY, SNAPSHOT_EXTRA } from './layout.js';

/** One internal snapshot as the table has it. */
export interface Snapshot {
  readonly l1Offset: number;
  readonly l1Entries: number;
  /** Bytes as they are on disk, mostly UTF-8. */
  readonly id: Uint8Array;
  readonly name: Uint8Array;
  readonly dateSeconds: number;
  readonly dateNanoseconds: number;
  /** Nanoseconds. */
  readonly vmClock: Bits64;
  /** Bytes behind the end of the disk that belong to the snapshot. */
  readonly vmStateSize: number;
  /** Virtual size in bytes; null where an old entry does not say. */
  readonly diskSize: number | null;
  readonly icount: Bits64;
  /** Extra data on disk before it is written again. */
  readonly extraBytes: number;
  /** What follows the known extra data. */
  readonly unknownExtra: Uint8Array;
}

/** All ones: instructions were not counted. */
export const NO_ICOUNT: Bits64 = { hi: 0xffff_ffff, lo: 0xffff_ffff };

/** Bytes that are shown of an ID and of a name. */
const ID_BYTES = 127;
const NAME_BYTES = 255;
const READ_BYTES = 1024 * 1024;
const NANOSECONDS = 1_000_000_000n;
const NO_BYTES = new Uint8Array(0);

export interface SnapshotTable {
  readonly snapshots: readonly Snapshot[];
  /** Bytes on disk. */
  readonly length: number;
}

export const NO_SNAPSHOTS: SnapshotTable = { snapshots: [], length: 0 };

export interface SnapshotReading {
  /** Extra data beyond the limit is skipped, where a repair is to drop it. */
  readonly isLenient: boolean;
}

interface SnapshotVisiting extends SnapshotReading {
  readonly visit: (snapshot: Snapshot) => void;
}

const STRICT: SnapshotReading = { isLenient: false };

/** All entries in their order. Throws kind `corrupt-image` for an entry that cannot be. */
export async function readSnapshotTable(
  file: Node,
  header: Qcow2Header,
  { isLenient }: SnapshotReading = STRICT,
): Promise<SnapshotTable> {
  const snapshots: Snapshot[] = [];
  const visit = (snapshot: Snapshot): void => void snapshots.push(snapshot);
  const input = new Ahead(file, header.fields.snapshotsOffset, false);
  const length = await visitEntries(input, header, { isLenient, visit });
  return { snapshots, length };
}

/**
 * The same one by one, whose bytes are there only until the visit ends; gives the bytes that the
 * table has.
 */
export function forEachSnapshot(
  file: Node,
  header: Qcow2Header,
  visiting: SnapshotVisiting,
): Promise<number> {
  return visitEntries(new Ahead(file, header.fields.snapshotsOffset, true), header, visiting);
}

async function visitEntries(
  input: Ahead,
  header: Qcow2Header,
  { visit, isLenient }: SnapshotVisiting,
): Promise<number> {
  const { nbSnapshots, snapshotsOffset, version } = header.fields;
  for (let index = 0; index < nbSnapshots; index += 1) {
    const start = input.position;
    const extent = { version, length: SNAPSHOT_ENTRY.size };
    const entry = decodeStruct(SNAPSHOT_ENTRY, await input.take(extent.length), extent);
    const most = IMAGE_LIMITS.qcow2SnapshotExtraBytes;
    if (entry.extraDataSize > most && !isLenient) {
      throw new BlockError(
        'corrupt-image',
        `Too much extra metadata in snapshot table entry ${index} ` +
          `(extra_data_size ${entry.extraDataSize})`,
      );
    }
    let extra: Uint8Array;
    let names: Uint8Array;
    const namesSize = entry.idSize + entry.nameSize;
    if (entry.extraDataSize <= most) {
      const rest = await input.take(entry.extraDataSize + namesSize);
      extra = rest.subarray(0, entry.extraDataSize);
      names = rest.subarray(entry.extraDataSize);
    } else {
      extra = (await input.take(most)).slice();
      input.skip(entry.extraDataSize - most);
      names = await input.take(namesSize);
    }
    const id = names.subarray(0, entry.idSize);
    const name = names.subarray(entry.idSize);
    const spare = (8 - ((input.position - start) % 8)) % 8;
    // The last entry may end the file without its padding.
    if (index + 1 < nbSnapshots) input.skip(spare);
    visit({
      l1Offset: entry.l1TableOffset,
      l1Entries: entry.l1Size,
      id,
      name,
      dateSeconds: entry.dateSeconds,
      dateNanoseconds: entry.dateNanoseconds,
      vmClock: entry.vmClock,
      ...extraFacts(extra, entry.vmStateSize),
      extraBytes: entry.extraDataSize,
    });
  }
  return input.position - snapshotsOffset;
}

function extraFacts(
  extra: Uint8Array,
  shortStateSize: number,
): Pick<Snapshot, 'vmStateSize' | 'diskSize' | 'icount' | 'unknownExtra'> {
  const known = decodeStruct(SNAPSHOT_EXTRA, extra, { version: 3, length: extra.length });
  return {
    vmStateSize: extra.length >= 8 ? known.vmStateSize : shortStateSize,
    diskSize: extra.length >= 16 ? known.diskSize : null,
    icount: extra.length >= 24 ? known.icount : NO_ICOUNT,
    unknownExtra:
      extra.length > SNAPSHOT_EXTRA.size ? extra.subarray(SNAPSHOT_EXTRA.size) : NO_BYTES,
  };
}

/** The bytes of a table; every entry gets its known extra data. */
export function encodeSnapshotTable(
  snapshots: readonly Snapshot[],
  { version, size }: { readonly version: number; readonly size: number },
): Uint8Array {
  let length = 0;
  for (const snapshot of snapshots) length += entryBytes(snapshot);
  if (length > IMAGE_LIMITS.qcow2ListBytes) {
    const text = `Snapshot table too large (${length} bytes)`;
    throw new BlockError('too-large', text, { errno: 'EFBIG' });
  }
  const bytes = new Uint8Array(length);
  let at = 0;
  for (const snapshot of snapshots) {
    const extraDataSize = SNAPSHOT_EXTRA.size + snapshot.unknownExtra.length;
    const whole = bytes.subarray(at, at + entryBytes(snapshot));
    const entry = {
      l1TableOffset: snapshot.l1Offset,
      l1Size: snapshot.l1Entries,
      idSize: snapshot.id.length,
      nameSize: snapshot.name.length,
      dateSeconds: snapshot.dateSeconds,
      dateNanoseconds: snapshot.dateNanoseconds,
      vmClock: snapshot.vmClock,
      // Readers that know no extra data see nothing rather than a part.
      vmStateSize: snapshot.vmStateSize > 0xffff_ffff ? 0 : snapshot.vmStateSize,
      extraDataSize,
    };
    const extra = {
      vmStateSize: snapshot.vmStateSize,
      diskSize: snapshot.diskSize ?? size,
      icount: snapshot.icount,
    };
    encodeStruct(SNAPSHOT_ENTRY, entry, { bytes: whole, version, length: SNAPSHOT_ENTRY.size });
    let place = SNAPSHOT_ENTRY.size;
    encodeStruct(SNAPSHOT_EXTRA, extra, {
      bytes: whole.subarray(place),
      version,
      length: SNAPSHOT_EXTRA.size,
    });
    place += SNAPSHOT_EXTRA.size;
    for (const part of [snapshot.unknownExtra, snapshot.id, snapshot.name]) {
      whole.set(part, place);
      place += part.length;
    }
    at += whole.length;
  }
  return bytes;
}

function entryBytes({ unknownExtra, id, name }: Snapshot): number {
  const extra = SNAPSHOT_EXTRA.size + unknownExtra.length;
  return Math.ceil((SNAPSHOT_ENTRY.size + extra + id.length + name.length) / 8) * 8;
}

/** ID and name, which tell snapshots apart. */
export function keyOf({ id, name }: Snapshot): Pick<SnapshotFacts, 'id' | 'name'> {
  return { id: textOf(id, ID_BYTES), name: textOf(name, NAME_BYTES) };
}

/** What info and listings say of a snapshot. */
export function factsOf(snapshot: Snapshot): SnapshotFacts {
  const { id, name, icount, dateSeconds, dateNanoseconds, vmStateSize } = snapshot;
  const clock = clockOf(snapshot.vmClock);
  const facts = {
    id: textOf(id, ID_BYTES),
    name: textOf(name, NAME_BYTES),
    vmStateSize,
    dateSeconds,
    dateNanoseconds,
    vmClockSeconds: clock.seconds,
    vmClockNanoseconds: clock.nanoseconds,
  };
  if (icount.hi === NO_ICOUNT.hi && icount.lo === NO_ICOUNT.lo) return facts;
  return { ...facts, icount: icount.hi * 0x1_0000_0000 + icount.lo };
}

/** Most machines ran for less than the 104 days that need no BigInt. */
function clockOf({ hi, lo }: Bits64): { readonly seconds: number; readonly nanoseconds: number } {
  if (hi < 0x20_0000) {
    const all = hi * 0x1_0000_0000 + lo;
    return { seconds: Math.floor(all / 1e9), nanoseconds: all % 1e9 };
  }
  const clock = (BigInt(hi) << 32n) | BigInt(lo);
  return { seconds: Number(clock / NANOSECONDS), nanoseconds: Number(clock % NANOSECONDS) };
}

/** ID and name as everyone who shows them sees them: up to a zero byte, and not without end. */
function textOf(bytes: Uint8Array, most: number): string {
  const seen = bytes.subarray(0, most);
  const end = seen.indexOf(0);
  const { buffer, byteOffset } = seen;
  return Buffer.from(buffer, byteOffset, end < 0 ? seen.length : end).toString('utf8');
}

export function bits64Of(value: number): Bits64 {
  if (value === 0) return NO_BITS;
  return { hi: Math.floor(value / 0x1_0000_0000), lo: value % 0x1_0000_0000 >>> 0 };
}

/** A time as the table has it. */
export function nanoseconds(seconds: number, rest: number): Bits64 {
  const value = BigInt(seconds) * NANOSECONDS + BigInt(rest);
  return { hi: Number((value >> 32n) & 0xffff_ffffn), lo: Number(value & 0xffff_ffffn) };
}

/** Reads on from one place of the file, in pieces larger than what is asked for. */
class Ahead {
  readonly #file: Node;
  readonly #start: number;
  readonly #reuses: boolean;
  #bytes: Uint8Array = NO_BYTES;
  /** Offset in the file of the first byte held. */
  #from: number;
  position: number;

  /** `reuses`: what take() gave is overwritten by what it gives next. */
  constructor(file: Node, start: number, reuses: boolean) {
    this.#file = file;
    this.#reuses = reuses;
    this.#start = start;
    this.#from = start;
    this.position = start;
  }

  /** The next bytes; nothing is ever read over them. */
  async take(length: number): Promise<Uint8Array> {
    const end = this.position + length;
    if (end - this.#start > IMAGE_LIMITS.qcow2ListBytes) {
      throw new BlockError('corrupt-image', `Snapshot table is too big (offset ${this.position})`);
    }
    if (end > this.#file.length) {
      const text = `Snapshot table ends too early (offset ${this.position})`;
      throw new BlockError('corrupt-image', text);
    }
    if (end > this.#from + this.#bytes.length) await this.#fill(length);
    const bytes = this.#bytes.subarray(this.position - this.#from, end - this.#from);
    this.position = end;
    return bytes;
  }

  /** What is not read; the next bytes may be behind the end of the file. */
  skip(length: number): void {
    this.position += length;
    if (this.position > this.#from + this.#bytes.length) {
      this.#from = this.position;
      this.#bytes = NO_BYTES;
    }
  }

  async #fill(length: number): Promise<void> {
    const there = this.#file.length - this.position;
    const size = Math.min(there, Math.max(length, READ_BYTES));
    const reused = this.#reuses && size <= this.#bytes.length;
    const bytes = reused ? this.#bytes.subarray(0, size) : new Uint8Array(size);
    await this.#file.read(readRequest(this.position, bytes));
    this.#from = this.position;
    this.#bytes = bytes;
  }
}
