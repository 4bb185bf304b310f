// SPDX-License-Identifier: Apache-2.0
// A view walked in batches says what it says one question after another, through overlays, filters
// and raw files with holes; and what is copied and compared by that walk are the bytes.
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { SeededRandom } from '../../src/base/index.js';
import { readRequest, RequestFlag } from '../../src/block/index.js';
import type { Backend, Node, NodeOptions } from '../../src/block/index.js';
import {
  CopyEngine,
  copyImage,
  inProcessLanes,
  ViewComparer,
  ViewRuns,
  viewStatus,
} from '../../src/block/copy/index.js';
import { qcow2Driver } from '../../src/drivers/formats/qcow2/index.js';
import { graphOn, makeFile, MemoryHost, READ_WRITE } from '../helpers/graph.js';
import { createOn } from '../helpers/qcow2-create.js';

const SIZE = 3 * 1024 * 1024;
const SECTOR = 512;

const ranges = fc.array(
  fc.record({
    at: fc.nat({ max: SIZE / SECTOR - 1 }),
    sectors: fc.constantFrom(1, 8, 128, 600, 1200),
    zero: fc.boolean(),
  }),
  { maxLength: 8 },
);

const images = fc.record({
  base: ranges,
  overlay: ranges,
  baseSectors: fc.constantFrom(SIZE / SECTOR, SIZE / SECTOR / 2 + 1),
  extended: fc.boolean(),
  compress: fc.boolean(),
  seed: fc.nat(),
});

type Images = typeof images extends fc.Arbitrary<infer T> ? T : never;

async function write(user: Backend, list: Images['base'], seed: number): Promise<void> {
  const random = new SeededRandom(seed);
  for (const { at, sectors, zero } of list) {
    const offset = at * SECTOR;
    const length = Math.min(sectors * SECTOR, user.node.length - offset);
    if (length <= 0) continue;
    const bytes = new Uint8Array(length);
    random.fill(bytes);
    if (zero) await user.writeZeroes(offset, length, RequestFlag.mayUnmap);
    else await user.write(offset, bytes);
  }
}

/** 1 for each sector that reads as zeroes. */
async function oneByOne(node: Node): Promise<Uint8Array> {
  const zeroes = new Uint8Array(SIZE / SECTOR);
  for (let at = 0; at < SIZE; ) {
    const { zero, length } = await viewStatus(node, at, SIZE - at);
    zeroes.fill(zero ? 1 : 0, at / SECTOR, (at + length) / SECTOR);
    at += length;
  }
  return zeroes;
}

async function inBatches(node: Node): Promise<Uint8Array> {
  const zeroes = new Uint8Array(SIZE / SECTOR);
  const runs = new ViewRuns(node);
  for (let at = 0; at < SIZE; ) {
    const found = runs.find(at);
    if (found instanceof Promise) await found;
    const length = Math.min(SIZE - at, runs.lengthFrom(at));
    expect(length).toBeGreaterThan(0);
    zeroes.fill(runs.isZero ? 1 : 0, at / SECTOR, (at + length) / SECTOR);
    at += length;
  }
  return zeroes;
}

async function bytesOf(node: Node): Promise<Uint8Array> {
  const bytes = new Uint8Array(SIZE);
  await node.read(readRequest(0, bytes));
  return bytes;
}

async function hold({ base, overlay, baseSectors, extended, compress, seed }: Images) {
  const host = new MemoryHost({ seed });
  const graph = graphOn(host, [qcow2Driver]);
  await makeFile(host, '/base', baseSectors * SECTOR);
  for (const path of ['/overlay', '/copy']) {
    await createOn(host, path, { size: SIZE, 'cluster-size': 16_384, 'extended-l2': extended });
  }
  const file = (filename: string): NodeOptions => ({ driver: 'file', filename });
  const backing: NodeOptions = { driver: 'raw', file: file('/base') };
  const lower = await graph.attach(await graph.open(backing), 'base', READ_WRITE);
  await write(lower, base, seed);
  await lower.detach();
  const top = { driver: 'qcow2', file: file('/overlay'), backing };
  const source = await graph.attach(await graph.open(top), 'source', READ_WRITE);
  await write(source, overlay, seed + 1);
  expect(await inBatches(source.node)).toEqual(await oneByOne(source.node));

  const copy: NodeOptions = { driver: 'qcow2', file: file('/copy') };
  const target = await graph.attach(await graph.open(copy), 'target', READ_WRITE);
  const lanes = inProcessLanes(new SeededRandom(seed));
  const engine = new CopyEngine({ lanes });
  const plan = { unit: 16_384, zeroGranularity: 4096, targetIsZero: true, compress };
  expect(await copyImage(engine, host.clock, { source, target, ...plan })).toBeNull();
  const bytes = await bytesOf(source.node);
  expect(Buffer.compare(await bytesOf(target.node), bytes)).toBe(0);

  const spans = [SIZE - 700_000, 0].map((offset) => ({ offset, length: 700_000 }));
  const comparer = new ViewComparer(lanes, source, target);
  for (const outcome of await comparer.compare(spans)) expect(outcome).not.toBeTypeOf('number');
  const changed = Buffer.from([(bytes[SECTOR] ?? 0) ^ 1]);
  await target.write(SECTOR, changed);
  await target.flush();
  expect(await comparer.compare([...spans].reverse())).toContain(SECTOR);
  await graph.closeAll().catch(() => undefined);
}

/** The end of a compressed cluster's last sector is a hole of the file. */
const COMPRESSED_IN_PARTS: Images = {
  base: [{ at: 0, sectors: 600, zero: false }],
  overlay: [],
  baseSectors: SIZE / SECTOR,
  extended: false,
  compress: true,
  seed: 0,
};

it('a view in batches is what it is step by step, and so are its copy and a comparison', () =>
  fc.assert(fc.asyncProperty(images, hold), { numRuns: 15, examples: [[COMPRESSED_IN_PARTS]] }));
