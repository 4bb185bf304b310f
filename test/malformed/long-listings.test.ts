// SPDX-License-Identifier: Apache-2.0
// As many snapshots and bitmaps as the format allows, with names as long as their tables have room
// for: whoever lists, checks or only opens such an image ends in time and in little memory.
import { execFileSync } from 'node:child_process';
import {
  closeSync, fstatSync, ftruncateSync, mkdtempSync, openSync, readSync, rmSync, writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { misdeeds, runMeasured } from '../helpers/measured-run.js';
import { peer } from '../helpers/peers.js';
import { someOf } from '../helpers/seeds.js';

const CLUSTER = 65_536;
const SNAPSHOTS = 65_536;
const BITMAPS = 65_535;
const BITMAPS_TYPE = 0x2385_2875;

const tool = peer('qemu-img') ?? '';
let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'listings-'));
  if (tool === '') return;
  makeSnapshots('short-names', 6);
  makeSnapshots('long-names', 950);
  makeBitmaps('bitmaps', 1000);
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function img(...args: readonly string[]): void {
  execFileSync(tool, args, { cwd: folder });
}

/** Appends a table at a cluster of its own and puts the numbers that name it in their places. */
function append(
  name: string,
  table: Buffer,
  link: (at: number) => readonly (readonly [number, Buffer])[],
): void {
  const file = openSync(join(folder, name), 'r+');
  const at = Math.ceil(fstatSync(file).size / CLUSTER) * CLUSTER;
  writeSync(file, table, 0, table.length, at);
  ftruncateSync(file, Math.ceil((at + table.length) / CLUSTER) * CLUSTER);
  for (const [place, bytes] of link(at)) writeSync(file, bytes, 0, bytes.length, place);
  closeSync(file);
}

function head(name: string): Buffer {
  const bytes = Buffer.alloc(CLUSTER * 8);
  const file = openSync(join(folder, name), 'r');
  readSync(file, bytes, 0, bytes.length, 0);
  closeSync(file);
  return bytes;
}

const u64 = (value: number): Buffer => {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64BE(BigInt(value));
  return bytes;
};

const u32 = (value: number): Buffer => u64(value).subarray(4);

/** All have the L1 table of the image itself. */
function makeSnapshots(name: string, nameBytes: number): void {
  img('create', '-q', '-f', 'qcow2', name, '1M');
  const header = head(name);
  const entryBytes = Math.ceil((40 + 16 + 5 + nameBytes) / 8) * 8;
  const table = Buffer.alloc(entryBytes * SNAPSHOTS);
  for (let index = 0; index < SNAPSHOTS; index += 1) {
    const at = index * entryBytes;
    header.copy(table, at, 40, 48);
    header.copy(table, at + 8, 36, 40);
    table.writeUInt16BE(5, at + 12);
    table.writeUInt16BE(nameBytes, at + 14);
    table.writeUInt32BE(16, at + 36);
    table.write(`${index}`.padStart(5, '0') + `${index}`.padEnd(nameBytes, 'n'), at + 56);
  }
  append(name, table, (at) => [[60, u32(SNAPSHOTS)], [64, u64(at)]]);
}

/** All have one table. */
function makeBitmaps(name: string, nameBytes: number): void {
  img('create', '-q', '-f', 'qcow2', name, '1M');
  img('bitmap', '--add', name, 'first');
  const bytes = head(name);
  let extension = bytes.readUInt32BE(100);
  while (bytes.readUInt32BE(extension) !== BITMAPS_TYPE) {
    extension += 8 + Math.ceil(bytes.readUInt32BE(extension + 4) / 8) * 8;
  }
  const first = Number(bytes.readBigUInt64BE(extension + 24));
  const entryBytes = Math.ceil((24 + nameBytes) / 8) * 8;
  const directory = Buffer.alloc(entryBytes * BITMAPS);
  for (let index = 0; index < BITMAPS; index += 1) {
    const at = index * entryBytes;
    bytes.copy(directory, at, first, first + 24);
    directory.writeUInt16BE(nameBytes, at + 18);
    directory.write(`${index}`.padEnd(nameBytes, 'b'), at + 24);
  }
  append(name, directory, (at) => [
    [extension + 8, u32(BITMAPS)],
    [extension + 16, u64(directory.length)],
    [extension + 24, u64(at)],
  ]);
}

const CASES: readonly (readonly [words: readonly string[], status: number])[] = [
  [['info', '--output=json', 'bitmaps'], 0],
  [['snapshot', '-l', '--output=json', 'short-names'], 0],
  [['info', 'short-names'], 0],
  [['info', '--output=json', 'long-names'], 0],
  [['snapshot', '-l', 'long-names'], 0],
  [['check', 'long-names'], 2],
  [['check', 'bitmaps'], 2],
  [['map', 'bitmaps'], 0],
  [['measure', '-O', 'qcow2', 'bitmaps'], 0],
  [['convert', '-O', 'raw', 'long-names', 'copy'], 0],
  // The directory lies in clusters that are free, where nothing may be written.
  [['bitmap', '--remove', 'bitmaps', '7'.padEnd(1000, 'b')], 1],
];

describe.skipIf(tool === '')('the longest lists of an image are bounded', () => {
  for (const [words, status] of someOf(CASES, 4)) {
    it(words.join(' ').slice(0, 40), async () => {
      const run = await runMeasured(['img', ...words], { cwd: folder });
      expect(misdeeds(run)).toEqual([]);
      expect(run.status, run.complaint).toBe(status);
    }, 60_000);
  }
});
