// SPDX-License-Identifier: Apache-2.0
// The check's counters and findings stand beside those of qemu-img check, on sound images and on
// images broken by poking bytes.
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { CheckResult } from '../../src/block/index.js';
import { peer } from '../helpers/peers.js';
import { checkBytes } from '../helpers/qcow2-check.js';

const qemuImg = peer('qemu-img');
const qemuIo = peer('qemu-io');

interface Broken {
  readonly name: string;
  /** Offset and new 64-bit value, or offset and 16-bit value. */
  readonly poke: (
    image: Places,
  ) => readonly (readonly [offset: number, value: bigint, bytes: 2 | 4 | 8])[];
}

/** Where the tables of the image under test are. */
interface Places {
  readonly l1: number;
  readonly table: number;
  readonly block: number;
  readonly l2: number;
  readonly l2Compressed: number;
  entry(offset: number): bigint;
}

const COPIED = 1n << 63n;
const OFFSET = 0x00ff_ffff_ffff_fe00n;
const CLUSTER = 4096;

const BROKEN: readonly Broken[] = [
  { name: 'a data cluster nobody refers to', poke: (p) => [[p.l2 + 24, 0n, 8]] },
  { name: 'a data cluster with refcount 0', poke: (p) => [[refcountOf(p, p.l2), 0n, 2]] },
  { name: 'a data cluster with refcount 2', poke: (p) => [[refcountOf(p, p.l2), 2n, 2]] },
  { name: 'a missing copied flag', poke: (p) => [[p.l2, p.entry(p.l2) & OFFSET, 8]] },
  { name: 'an unaligned data cluster', poke: (p) => [[p.l2, p.entry(p.l2) + 512n, 8]] },
  { name: 'a data cluster far beyond the end', poke: (p) => [[p.l2, COPIED | 0x1000_0000n, 8]] },
  { name: 'a data cluster just beyond the end', poke: (p) => [[p.l2, COPIED | 106_496n, 8]] },
  { name: 'a data cluster used twice', poke: (p) => [[p.l2 + 8, p.entry(p.l2), 8]] },
  { name: 'a data cluster on its L2 table', poke: (p) => [[p.l2, COPIED | BigInt(p.l2), 8]] },
  { name: 'reserved bits in an L2 entry', poke: (p) => [[p.l2, p.entry(p.l2) | 2n, 8]] },
  { name: 'bit 60 in an L2 entry', poke: (p) => [[p.l2, p.entry(p.l2) | (1n << 60n), 8]] },
  { name: 'an unaligned preallocated zero', poke: (p) => [[p.l2 + 128, 0x10201n, 8]] },
  { name: 'an L1 entry without copied flag', poke: (p) => [[p.l1, p.entry(p.l1) & OFFSET, 8]] },
  { name: 'an unaligned L2 table', poke: (p) => [[p.l1, p.entry(p.l1) + 512n, 8]] },
  { name: 'an L2 table beyond the end', poke: (p) => [[p.l1, COPIED | 0x1000_0000n, 8]] },
  { name: 'an L2 table in the header', poke: (p) => [[p.l1, COPIED, 8]] },
  { name: 'reserved bits in an L1 entry', poke: (p) => [[p.l1, p.entry(p.l1) | 1n, 8]] },
  {
    name: 'reserved bits in a refcount table entry',
    poke: (p) => [[p.table, BigInt(p.block) | 1n, 8]],
  },
  { name: 'a refcount block outside the image', poke: (p) => [[p.table, 0x1000_0000n, 8]] },
  { name: 'no refcount block', poke: (p) => [[p.table, 0n, 8]] },
  { name: 'a refcount block used twice', poke: (p) => [[p.table + 8, BigInt(p.block), 8]] },
  {
    name: 'a refcount block with refcount 0',
    poke: (p) => [[p.block + (p.block / CLUSTER) * 2, 0n, 2]],
  },
  { name: 'a header with refcount 0', poke: (p) => [[p.block, 0n, 2]] },
  { name: 'refcounts beyond the end of the file', poke: (p) => [[p.block + 1000, 1n, 2]] },
  {
    name: 'a compressed cluster with copied flag',
    poke: (p) => [[p.l2Compressed, p.entry(p.l2Compressed) | COPIED, 8]],
  },
  {
    name: 'compressed data beyond the end',
    poke: (p) => [[p.l2Compressed, p.entry(p.l2Compressed) + 0x1000_0000n, 8]],
  },
  { name: 'the corrupt bit', poke: () => [[76, 2n, 4]] },
  { name: 'the dirty bit', poke: () => [[76, 1n, 4]] },
];

function refcountOf(places: Places, entryAt: number): number {
  return places.block + (Number(places.entry(entryAt) & OFFSET) / CLUSTER) * 2;
}

function placesOf(bytes: Buffer): Places {
  const entry = (offset: number): bigint => bytes.readBigUInt64BE(offset);
  const l1 = Number(entry(40));
  const table = Number(entry(48));
  const l2 = Number(entry(l1) & OFFSET);
  const l2Compressed = Number(entry(l1 + 32) & OFFSET);
  return { l1, table, block: Number(entry(table)), l2, l2Compressed, entry };
}

/** The members of `check --output=json` that count something. */
function asJson(result: CheckResult): Record<string, number> {
  const json: Record<string, number> = {
    'image-end-offset': result.imageEndOffset,
    'total-clusters': result.totalClusters,
    'check-errors': result.checkErrors,
    corruptions: result.corruptions,
    leaks: result.leaks,
    'allocated-clusters': result.allocatedClusters,
    'fragmented-clusters': result.fragmentedClusters,
    'compressed-clusters': result.compressedClusters,
  };
  return Object.fromEntries(Object.entries(json).filter(([, value]) => value !== 0));
}

describe.skipIf(qemuImg === null || qemuIo === null)('check beside qemu-img check', () => {
  let folder = '';
  let path = '';
  let sound: Buffer;

  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'blockwright-check-'));
    path = join(folder, 'image.qcow2');
    make('cluster_size=4k', '16M');
    sound = readFileSync(path);
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  function make(options: string, size: string): void {
    rmSync(path, { force: true });
    execFileSync(qemuImg ?? '', ['create', '-q', '-f', 'qcow2', '-o', options, path, size]);
    const commands = ['write -P 1 0 64k', 'write -P 3 4M 8k'];
    if (!options.includes('0.10')) commands.push('write -z 64k 8k', 'write -z 4M 4k');
    const match = /cluster_size=(\d+)(k?)/.exec(options);
    const cluster = Number(match?.[1] ?? 65_536) * (match?.[2] === 'k' ? 1024 : 1);
    // Two compressed clusters share a host cluster, which a width of one bit cannot count.
    if (!options.endsWith('_bits=1')) {
      commands.push(`write -c -P 7 8M ${cluster}`);
      commands.push(`write -c -P 8 ${8 * 1_048_576 + cluster} ${cluster}`);
    }
    const args = commands.flatMap((command) => ['-c', command]);
    execFileSync(qemuIo ?? '', ['-f', 'qcow2', ...args, path], { stdio: 'pipe' });
  }

  function reference(): { json: Record<string, number>; findings: string[] } {
    const run = (...args: string[]) =>
      spawnSync(qemuImg ?? '', ['check', '-f', 'qcow2', ...args, path], { encoding: 'utf8' });
    const { filename, format, ...counts } = JSON.parse(run('--output=json').stdout) as Record<
      string,
      unknown
    >;
    expect([filename, format]).toEqual([path, 'qcow2']);
    const json = Object.entries(counts).filter(([, value]) => value !== 0);
    const findings = run().stderr.split('\n').filter((line) => line !== '');
    return { json: Object.fromEntries(json) as Record<string, number>, findings };
  }

  async function compare(bytes: Buffer): Promise<void> {
    writeFileSync(path, bytes);
    const result = await checkBytes(bytes);
    const theirs = reference();
    expect(asJson(result)).toEqual(theirs.json);
    expect(result.messages).toEqual(theirs.findings);
  }

  for (const { name, poke } of BROKEN) {
    it(`counts and words the same for ${name}`, async () => {
      const bytes = Buffer.from(sound);
      for (const [offset, value, width] of poke(placesOf(sound))) {
        if (width === 8) bytes.writeBigUInt64BE(value, offset);
        else if (width === 4) bytes.writeUInt32BE(Number(value), offset);
        else bytes.writeUInt16BE(Number(value), offset);
      }
      await compare(bytes);
    });
  }

  const WIDTHS = [1, 2, 4, 8, 16, 32, 64].map((bits) => `cluster_size=4k,refcount_bits=${bits}`);
  const CLUSTERS = [512, 1024, 65_536, 2_097_152].map((size) => `cluster_size=${size}`);
  for (const options of [...WIDTHS, ...CLUSTERS, 'compat=0.10', 'lazy_refcounts=on']) {
    it(`finds nothing, as qemu-img, with ${options}`, async () => {
      make(options, '40M');
      await compare(readFileSync(path));
    });
  }
});
