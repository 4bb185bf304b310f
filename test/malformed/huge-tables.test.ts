// SPDX-License-Identifier: Apache-2.0
// L1 tables of the largest size that lead nowhere: a check ends in time and in little memory, with
// and without the means to see holes. Four million entries by default in one shape, in campaigns in
// all.
import { execFileSync } from 'node:child_process';
import {
  closeSync, ftruncateSync, mkdtempSync, openSync, rmSync, writeFileSync, writeSync,
} from 'node:fs';
import { endianness, tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { must, SeededRandom } from '../../src/base/index.js';
import { openNativeHost } from '../../src/host/index.js';
import { misdeeds, runMeasured } from '../helpers/measured-run.js';
import { peer } from '../helpers/peers.js';
import { someOf } from '../helpers/seeds.js';

const MIB = 2 ** 20;
const TABLE_BYTES = 32 * MIB;
const ENTRIES = TABLE_BYTES / 8;
/** By default all shapes but the first have an eighth of the entries: the limits stay the same. */
const FEWER = process.env['BLOCKWRIGHT_CAMPAIGN'] === undefined ? ENTRIES / 8 : ENTRIES;
const TABLE_OFFSET = 2 * MIB;
const DATA_OFFSET = TABLE_OFFSET + TABLE_BYTES;

interface Shape {
  readonly name: string;
  readonly clusterSize: number;
  /** Of the L1 table. */
  readonly entries: number;
  readonly fileLength: number;
  /** Host offset of an L2 table. */
  readonly place: (index: number, random: SeededRandom) => number;
  readonly env?: Readonly<Record<string, string>>;
  readonly needsNative?: boolean;
}

const IN_ONE_HOLE = {
  name: 'tables one after another in one hole',
  clusterSize: 65_536,
  entries: ENTRIES,
  fileLength: DATA_OFFSET + ENTRIES * 65_536,
  place: (index: number): number => DATA_OFFSET + index * 65_536,
};

const FEWER_IN_ONE_HOLE = { ...IN_ONE_HOLE, entries: FEWER };

const SHAPES: readonly Shape[] = [
  IN_ONE_HOLE,
  {
    ...FEWER_IN_ONE_HOLE,
    name: 'tables in a hole that the portable host cannot see',
    env: { BLOCKWRIGHT_NATIVE: '0' },
    // Without the addon the one above is the same.
    needsNative: true,
  },
  {
    name: 'small tables spread over four tebibytes',
    clusterSize: 512,
    entries: FEWER,
    fileLength: 4 * 2 ** 40 + DATA_OFFSET,
    place: (index) => DATA_OFFSET + index * MIB,
  },
  {
    name: 'tables at random offsets beyond the end of the file',
    clusterSize: 65_536,
    entries: FEWER,
    fileLength: DATA_OFFSET,
    place: (_, random) => random.below(2 ** 46) * 512,
  },
];

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'huge-tables-'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const made = new Map<string, string>();

/** Path of an image of that shape, which is only read. */
function imageOf(shape: Shape): string {
  const key = `${shape.entries} ${shape.fileLength} ${shape.clusterSize}`;
  const path = made.get(key) ?? join(folder, `${made.size}.qcow2`);
  if (!made.has(key)) makeImage(peer('qemu-img') ?? '', path, shape);
  made.set(key, path);
  return path;
}

function makeImage(tool: string, path: string, shape: Shape): void {
  const size = `cluster_size=${shape.clusterSize}`;
  execFileSync(tool, ['create', '-q', '-f', 'qcow2', '-o', size, path, '1M']);
  const halves = new Uint32Array(2 * shape.entries);
  const random = new SeededRandom(7);
  for (let index = 0; index < shape.entries; index += 1) {
    const offset = shape.place(index, random);
    halves[2 * index] = 0x8000_0000 + Math.floor(offset / 2 ** 32);
    halves[2 * index + 1] = offset % 2 ** 32;
  }
  const table = Buffer.from(halves.buffer);
  if (endianness() === 'LE') table.swap32();
  const header = Buffer.alloc(24);
  const length = Math.min((shape.entries * shape.clusterSize ** 2) / 8, 2 ** 52);
  header.writeBigUInt64BE(BigInt(length), 0);
  header.writeUInt32BE(shape.entries, 12);
  header.writeBigUInt64BE(BigInt(TABLE_OFFSET), 16);
  const file = openSync(path, 'r+');
  ftruncateSync(file, shape.fileLength);
  // Size, encryption method, l1_size, l1_table_offset.
  writeSync(file, header, 0, header.length, 24);
  writeSync(file, table, 0, table.length, TABLE_OFFSET);
  closeSync(file);
}

describe.skipIf(peer('qemu-img') === null)('a check of millions of L1 entries is bounded', () => {
  for (const shape of SHAPES) {
    const isSkipped = shape.needsNative === true && openNativeHost() === null;
    it.skipIf(isSkipped)(shape.name, async () => {
      const path = imageOf(shape);
      const args = ['img', 'check', '-f', 'qcow2', path];
      const run = await runMeasured(args, shape.env === undefined ? {} : { env: shape.env });
      expect(misdeeds(run)).toEqual([]);
      expect([1, 2]).toContain(run.status);
      if (run.status === 1) expect(run.complaint).toContain(`(l1_size ${shape.entries})`);
    }, 60_000);
  }
});

describe.skipIf(peer('qemu-img') === null)('a hole that cannot be seen', () => {
  // Each read of such a hole has the kernel read ahead.
  it('is not read for minutes to know that it holds no table', async () => {
    const shape = SHAPES.find(({ name }) => name.includes('spread'));
    const path = imageOf(must(shape, 'the shape'));
    const env = { BLOCKWRIGHT_NATIVE: '0' };
    const verbs = [['map', '--output=json'], ['check'], ['measure', '-O', 'qcow2']];
    for (const words of someOf(verbs, verbs.length)) {
      const run = await runMeasured(['img', ...words, '-U', path], { env });
      expect(misdeeds(run)).toEqual([]);
      expect(run.status).toBe(1);
      expect(run.complaint).toContain('Too many empty tables');
    }
  }, 60_000);
});

describe.skipIf(peer('qemu-img') === null || openNativeHost() === null)(
  'tables in a hole are not read to know that they are empty',
  () => {
    it.each([['map', '--output=json'], ['compare']])('by %s', async (verb, ...options) => {
      const path = imageOf(FEWER_IN_ONE_HOLE);
      const images = verb === 'compare' ? [path, path] : [path];
      const run = await runMeasured(['img', verb, ...options, '-U', ...images]);
      expect(misdeeds(run)).toEqual([]);
      expect(run.status).toBe(0);
    }, 60_000);
  },
);

describe.skipIf(peer('qemu-img') === null)('one table of data for all L1 entries', () => {
  /** Every other of its entries is data: no two become one extent. */
  function sharedTable(): string {
    const path = join(folder, 'shared.qcow2');
    const place = (): number => DATA_OFFSET;
    const fileLength = DATA_OFFSET + 131_072;
    const shape = { name: 'shared', clusterSize: 65_536, entries: ENTRIES, fileLength, place };
    makeImage(peer('qemu-img') ?? '', path, shape);
    const table = Buffer.alloc(65_536);
    for (let at = 0; at < table.length; at += 16) {
      table.writeBigUInt64BE((1n << 63n) + BigInt(DATA_OFFSET + 65_536), at);
    }
    const file = openSync(path, 'r+');
    writeSync(file, table, 0, table.length, DATA_OFFSET);
    closeSync(file);
    return path;
  }

  it('is refused by whoever would tell its extents', async () => {
    const path = sharedTable();
    const other = join(folder, 'other.raw');
    writeFileSync(other, '');
    const verbs = [
      ['map', '--output=json', path],
      ['measure', '-O', 'qcow2', path],
      ['convert', '-O', 'qcow2', path, join(folder, 'copy.qcow2')],
      ['compare', '-f', 'qcow2', '-F', 'raw', path, other],
    ];
    for (const words of someOf(verbs, verbs.length)) {
      const run = await runMeasured(['img', ...words]);
      expect(misdeeds(run)).toEqual([]);
      expect([run.status, run.complaint]).toEqual([
        words[0] === 'compare' ? 3 : 1,
        expect.stringContaining('4194303 L1 entries name L2 tables that others name as well'),
      ]);
    }
  }, 120_000);

  it.skipIf(process.env['BLOCKWRIGHT_CAMPAIGN'] === undefined)('is checked in time', async () => {
    const run = await runMeasured(['img', 'check', sharedTable()]);
    expect(misdeeds(run)).toEqual([]);
    expect(run.status).toBe(2);
  }, 60_000);
});
