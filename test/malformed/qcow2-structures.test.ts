// SPDX-License-Identifier: Apache-2.0
// Every rule of the structures behind the header broken once: bitmaps extension, bitmap directory,
// snapshot table, extended L2 entries. Each verb ends with its work or with one clear line; at
// least one tells of the damage, and the image stays as it was.
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { rulesOf } from '../../src/base/index.js';
import type { BreakableRule } from '../../src/base/index.js';
import {
  BITMAP_ENTRY,
  BITMAPS_EXTENSION,
  EXTENSION_HEADER_SIZE,
  ExtensionType,
  SNAPSHOT_ENTRY,
} from '../../src/drivers/formats/qcow2/layout.js';
import { CommandServer } from '../helpers/command-server.js';
import { goldenImages, unpackGolden } from '../helpers/golden.js';
import type { GoldenFolder } from '../helpers/golden.js';
import { measureLine, misdeeds, refusalLines } from '../helpers/measured-run.js';

const BASES = ['bitmap.qcow2', 'snapshot.qcow2', 'extended-l2.qcow2'] as const;

const server = new CommandServer();
let golden: GoldenFolder;
beforeAll(() => {
  golden = unpackGolden(goldenImages.filter(({ file }) => BASES.some((base) => base === file)));
});
afterAll(() => {
  server.close();
  golden.remove();
});

interface Poke {
  /** Byte of the file. */
  readonly offset: number;
  readonly size: number;
  readonly value: bigint;
}

function poke(bytes: Buffer, { offset, size, value }: Poke): void {
  for (let at = 0; at < size; at += 1) {
    bytes[offset + at] = Number((value >> BigInt(8 * (size - 1 - at))) & 0xffn);
  }
}

function ofRule(start: number, { offset, size, badValue }: BreakableRule): Poke {
  return { offset: start + offset, size, value: BigInt(badValue) };
}

/** What tells of the damage, and how many of the verbs did. */
function tellers(base: string, pokes: readonly Poke[]): string[] {
  const bytes = readFileSync(join(golden.path, base));
  for (const each of pokes) poke(bytes, each);
  const image = join(golden.path, 'broken.qcow2');
  writeFileSync(image, bytes);
  const verbs = [
    ['info', '--output=json', image],
    ['check', image],
    ['map', '--output=json', image],
    ['snapshot', '-l', image],
    ['measure', '-O', 'qcow2', image],
    ['convert', '-O', 'qcow2', image, 'copy.qcow2'],
  ];
  const told: string[] = [];
  for (const words of verbs) {
    const run = measureLine(server, ['img', ...words], golden.path);
    expect(misdeeds(run)).toEqual([]);
    if (run.status === 0) continue;
    told.push(`${words[0] ?? ''}: ${run.output}${run.complaint}`);
    if (words[0] !== 'check') expect(refusalLines(run)).toHaveLength(1);
  }
  expect(readFileSync(image).equals(bytes)).toBe(true);
  return told;
}

/** Where the payload of the bitmaps extension begins. */
function bitmapsExtension(bytes: Buffer): number {
  for (let at = bytes.readUInt32BE(100); ; ) {
    const type = bytes.readUInt32BE(at);
    if (type === ExtensionType.bitmaps) return at + EXTENSION_HEADER_SIZE;
    expect(type).not.toBe(ExtensionType.end);
    at += EXTENSION_HEADER_SIZE + Math.ceil(bytes.readUInt32BE(at + 4) / 8) * 8;
  }
}

const V3 = { version: 3, length: 1024 };
const read = (base: string): Buffer => readFileSync(join(golden.path, base));

describe('a broken rule is told', () => {
  for (const rule of rulesOf(BITMAPS_EXTENSION, V3)) {
    it(`of the bitmaps extension: ${rule.json} ${rule.badValue} (${rule.rule})`, () => {
      const told = tellers('bitmap.qcow2', [ofRule(bitmapsExtension(read('bitmap.qcow2')), rule)]);
      expect(told.join()).toMatch(/bitmap/i);
    });
  }

  for (const rule of rulesOf(BITMAP_ENTRY, V3)) {
    it(`of the bitmap directory: ${rule.json} ${rule.badValue} (${rule.rule})`, () => {
      const bytes = read('bitmap.qcow2');
      const directory = Number(bytes.readBigUInt64BE(bitmapsExtension(bytes) + 16));
      expect(tellers('bitmap.qcow2', [ofRule(directory, rule)]).join()).toMatch(/bitmap/i);
    });
  }

  for (const rule of rulesOf(SNAPSHOT_ENTRY, V3)) {
    it(`of the snapshot table: ${rule.json} ${rule.badValue} (${rule.rule})`, () => {
      const table = Number(read('snapshot.qcow2').readBigUInt64BE(64));
      expect(tellers('snapshot.qcow2', [ofRule(table, rule)]).join()).toMatch(/snapshot/i);
    });
  }

  it.each([
    ['an L1 table inside a cluster', 0, 8, 0x3001n],
    ['an L1 table beyond the end', 0, 8, 1n << 40n],
    ['an L1 offset of 2^63', 0, 8, 1n << 63n],
    ['an L1 table of 32 GiB', 8, 4, 0xffff_ffffn],
    ['extra data of 4 GiB', 36, 4, 0xffff_ffffn],
    ['a name behind the end of the file', 14, 2, 0xffffn],
  ] as const)('of the snapshot table: %s', (_, offset, size, value) => {
    const table = Number(read('snapshot.qcow2').readBigUInt64BE(64));
    const told = tellers('snapshot.qcow2', [{ offset: table + offset, size, value }]);
    expect(told).not.toEqual([]);
  });

  it.each([
    ['a subcluster both allocated and zero', 8, 0x0000_0001_0000_0001n],
    ['an allocated subcluster without a host cluster', 0, 0n],
    ['a host cluster at an odd offset', 0, 0x8000_0000_0000_4200n],
    ['a host cluster beyond the end', 0, 0x8000_4000_0000_0000n],
    ['reserved bits', 0, 0x8fff_0000_0000_4001n],
  ] as const)('of extended L2 entries: %s', (_, offset, value) => {
    const bytes = read('extended-l2.qcow2');
    const l1 = Number(bytes.readBigUInt64BE(40));
    const mask = 0x00ff_ffff_ffff_fe00n;
    const l2 = Number(bytes.readBigUInt64BE(l1) & mask);
    let entry = l2;
    while (bytes.readUInt32BE(entry + 12) === 0) entry += 16;
    const told = tellers('extended-l2.qcow2', [{ offset: entry + offset, size: 8, value }]);
    expect(told.some((text) => text.startsWith('check: '))).toBe(true);
  });
});
