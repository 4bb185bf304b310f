// SPDX-License-Identifier: Apache-2.0
// Internal snapshots as info lists them; their contents are not touched.
//
// Source: the qcow2 format description ("Snapshots"). Entries are read one
// after another, each length compared with its limit and with the end of the file first.

import {
  BlockError,
  decodeStruct,
  IMAGE_LIMITS,
  struct,
  u16,
  u32,
  u64,
  validateStruct,
} from '../../../base/index.js';
import type { Struct } from '../../../base/index.js';
import { readRequest } from '../../../block/index.js';
import type { Node, SnapshotFacts } from '../../../block/index.js';
import type { Qcow2Header } from './header.js';

const SNAPSHOT = struct('snapshot table entry', [
  u64('l1TableOffset'),
  u32('l1Size'),
  u16('idSize'),
  u16('nameSize'),
  u32('dateSeconds'),
  u32('dateNanoseconds'),
  u64('vmClock'),
  u32('vmStateSize'),
  u32('extraDataSize', { max: 1024 }),
]);

const SNAPSHOT_EXTRA = struct('snapshot extra data', [
  u64('vmStateSize'),
  u64('diskSize'),
  u32('icountHigh'),
  u32('icountLow'),
]);

/** Reads ahead in one table; refuses to leave the file or the table's own limit. */
class TableCursor {
  readonly #file: Node;
  readonly #name: string;
  readonly #end: number;
  offset: number;

  constructor(file: Node, name: string, range: { offset: number; length: number }) {
    this.#file = file;
    this.#name = name;
    this.offset = range.offset;
    this.#end = Math.min(file.length, range.offset + range.length);
  }

  async take(length: number): Promise<Uint8Array> {
    if (this.offset + length > this.#end) {
      throw new BlockError('corrupt-image', `${this.#name} ends too early (offset ${this.offset})`);
    }
    const bytes = new Uint8Array(length);
    if (length > 0) await this.#file.read(readRequest(this.offset, bytes));
    this.offset += length;
    return bytes;
  }

  async decode<V>(table: Struct<V>): Promise<V> {
    const extent = { version: 3, length: table.size };
    const value = decodeStruct(table, await this.take(table.size), extent);
    validateStruct(table, value, extent);
    return value;
  }

  async text(length: number): Promise<string> {
    return Buffer.from(await this.take(length)).toString('utf8');
  }

  align(start: number): void {
    this.offset = start + Math.ceil((this.offset - start) / 8) * 8;
  }
}

/** All snapshots in the order of the table. */
export async function readSnapshots(file: Node, header: Qcow2Header): Promise<SnapshotFacts[]> {
  const { nbSnapshots, snapshotsOffset } = header.fields;
  const range = { offset: snapshotsOffset, length: IMAGE_LIMITS.qcow2ListBytes };
  const cursor = new TableCursor(file, 'Snapshot table', range);
  const snapshots: SnapshotFacts[] = [];
  for (let index = 0; index < nbSnapshots; index += 1) {
    const start = cursor.offset;
    const entry = await cursor.decode(SNAPSHOT);
    const extra = await cursor.take(entry.extraDataSize);
    const more = decodeStruct(SNAPSHOT_EXTRA, padded(extra), {
      version: 3,
      length: extra.length,
    });
    const id = await cursor.text(entry.idSize);
    const name = await cursor.text(entry.nameSize);
    cursor.align(start);
    const facts = {
      id,
      name,
      vmStateSize: extra.length >= 8 ? more.vmStateSize : entry.vmStateSize,
      dateSeconds: entry.dateSeconds,
      dateNanoseconds: entry.dateNanoseconds,
      vmClockSeconds: Math.floor(entry.vmClock / 1e9),
      vmClockNanoseconds: entry.vmClock % 1e9,
    };
    const unknown = more.icountHigh === 0xffff_ffff && more.icountLow === 0xffff_ffff;
    const icount = more.icountHigh * 0x1_0000_0000 + more.icountLow;
    snapshots.push(extra.length >= 24 && !unknown ? { ...facts, icount } : facts);
  }
  return snapshots;
}

function padded(extra: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(Math.max(SNAPSHOT_EXTRA.size, extra.length));
  bytes.set(extra);
  return bytes;
}
