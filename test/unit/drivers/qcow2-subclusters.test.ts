// SPDX-License-Identifier: Apache-2.0
// Subclusters: the mask arithmetic against one subcluster at a time, how little a write over a
// backing file copies, and what a write leaves of a cluster that is shared.
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { writeRequest, zeroRequest } from '../../../src/block/index.js';
import type { Node, Request } from '../../../src/block/index.js';
import {
  erasedEntry,
  filledSpan,
  maskOfKind,
  maskWithin,
  runOfMask,
  subclusterKind,
  writtenEntry,
} from '../../../src/drivers/formats/qcow2/data/subclusters.js';
import { subclusterParts } from '../../../src/drivers/formats/qcow2/data/reserved-parts.js';
import {
  EntryKind,
  isContradiction,
  ownedEntry,
} from '../../../src/drivers/formats/qcow2/entries.js';
import type { L2Entry } from '../../../src/drivers/formats/qcow2/entries.js';
import { geometryOf } from '../../../src/drivers/formats/qcow2/layout.js';
import { MemoryHost } from '../../../src/host/index.js';
import { checkBytes } from '../../helpers/qcow2-check.js';
import { createOn } from '../../helpers/qcow2-create.js';
import { openOn } from '../../helpers/qcow2-node.js';

const CLUSTER = 65_536;
const SUBCLUSTER = CLUSTER / 32;
const geometry = geometryOf(16, 4, true);
const kinds = [
  EntryKind.unallocated,
  EntryKind.zero,
  EntryKind.data,
  EntryKind.zeroAllocated,
  EntryKind.hosted,
];

const numbers = Array.from({ length: 32 }, (_, number) => number);
const words = fc.integer({ min: 0, max: 0xffff_ffff });
const entries: fc.Arbitrary<L2Entry> = fc
  .record({ hosted: fc.boolean(), zeroes: words, allocated: words })
  .map(({ hosted, zeroes, allocated }) => ({
    ...(hosted ? ownedEntry(7 * CLUSTER) : { hi: 0, lo: 0 }),
    zeroes,
    allocated: hosted ? (allocated & ~zeroes) >>> 0 : 0,
  }));
const spans = fc
  .tuple(fc.nat({ max: 3 * CLUSTER }), fc.integer({ min: 1, max: 2 * CLUSTER }))
  .map(([start, length]) => ({ start, end: start + length }));
const has = (mask: number, number: number): boolean => ((mask >>> number) & 1) === 1;

describe('the masks of subclusters', () => {
  it('hold exactly the subclusters that a span meets', () => {
    fc.assert(
      fc.property(spans, fc.nat({ max: 5 }), (span, cluster) => {
        const mask = maskWithin(span, cluster, geometry);
        for (const number of numbers) {
          const start = cluster * CLUSTER + number * SUBCLUSTER;
          const meets = start < span.end && start + SUBCLUSTER > span.start;
          expect(has(mask, number)).toBe(meets);
        }
      }),
    );
  });

  it('give each subcluster one kind, and runs of it', () => {
    fc.assert(
      fc.property(entries, (entry) => {
        expect(isContradiction(entry)).toBe(false);
        for (const number of numbers) {
          const kind = subclusterKind(entry, number);
          for (const other of kinds) {
            expect(has(maskOfKind(entry, other), number)).toBe(other === kind);
          }
          const run = runOfMask(maskOfKind(entry, kind), number);
          const stop = numbers.find((at) => at > number && subclusterKind(entry, at) !== kind);
          expect(run).toBe((stop ?? 32) - number);
        }
      }),
      { numRuns: 30 },
    );
  });

  it('say what is written and zeroed, and keep all else', () => {
    fc.assert(
      fc.property(entries, words, fc.boolean(), (entry, mask, unmap) => {
        const own = ownedEntry(9 * CLUSTER);
        const written = writtenEntry(entry, own, mask);
        const how = { discard: false, unmap, geometry, backed: true };
        const zeroed = erasedEntry(entry, mask, how);
        const claimed = erasedEntry(entry, mask, { ...how, holes: true });
        const reads = (of: L2Entry, number: number): string => {
          const kind = subclusterKind(of, number);
          if (kind === EntryKind.data) return 'data';
          return kind === EntryKind.zero || kind === EntryKind.zeroAllocated ? 'zero' : 'behind';
        };
        for (const number of numbers) {
          const before = reads(entry, number);
          const isIn = has(mask, number);
          expect(reads(written, number)).toBe(isIn ? 'data' : before);
          expect(reads(zeroed, number)).toBe(isIn ? 'zero' : before);
          expect(reads(claimed, number)).toBe(isIn && before === 'behind' ? 'zero' : before);
        }
        const results = [written, zeroed, claimed];
        expect(results.some((result) => isContradiction(result))).toBe(false);
      }),
      { numRuns: 40 },
    );
  });

  it('make a write into a new cluster take along what the old one holds', () => {
    fc.assert(
      fc.property(entries, fc.nat({ max: CLUSTER - 1 }), fc.nat(), (entry, start, more) => {
        const span = { start, end: start + 1 + (more % (CLUSTER - start)) };
        const filled = filledSpan(span, { cluster: 0, old: entry }, geometry);
        const mask = maskWithin(filled, 0, geometry);
        const least = (maskWithin(span, 0, geometry) | entry.allocated) >>> 0;
        expect((mask & least) >>> 0).toBe(least);
        const ends = [runOfMask((~least) >>> 0, 0), 32 - Math.clz32(least)];
        expect([filled.start / SUBCLUSTER, filled.end / SUBCLUSTER]).toEqual(ends);
      }),
    );
  });
});

describe('the parts of a filled reservation', () => {
  const zeroed = fc.array(fc.tuple(fc.nat({ max: 9000 }), fc.integer({ min: 1, max: 90_000 })));
  const piece = fc.record({ sectors: fc.integer({ min: 1, max: 600 }), zeroed });

  it('make each byte data, zeroes to be written first, or zeroes that the entry says', () => {
    fc.assert(
      fc.property(piece, ({ sectors, zeroed: gaps }) => {
        const length = sectors * 512;
        const zeroRanges: number[] = [];
        const isZero = new Uint8Array(length);
        for (let at = 0, index = 0; index < gaps.length; index += 1) {
          const [skip, span] = gaps[index] ?? [0, 0];
          const start = at + skip;
          at = Math.min(length, start + span);
          if (start >= at) break;
          zeroRanges.push(start, at - start);
          isZero.fill(1, start, at);
          at += 1;
        }
        const offset = 5 * CLUSTER;
        const written = { offset, length, hostOffset: 0, zeroRanges, holes: false };
        const { fills, runs } = subclusterParts(written, geometry);
        const state = new Uint8Array(Math.ceil(length / CLUSTER) * CLUSTER);
        let next = offset;
        for (const run of runs) {
          expect(run.offset).toBe(next);
          next += run.length;
          const from = run.offset - offset;
          for (let at = from; at < from + run.length; at += 1) {
            const bit = Math.floor((at % CLUSTER) / SUBCLUSTER);
            const isData = run.masks ? has(run.masks.allocated, bit) : run.hostOffset !== null;
            state[at] = isData ? 1 : 2;
          }
        }
        expect(next).toBe(offset + length);
        for (let index = 0; index < fills.length; index += 2) {
          const start = fills[index] ?? 0;
          state.fill(3, start, start + (fills[index + 1] ?? 0));
        }
        const wrong = isZero.findIndex((zero, at) => (zero === 1) === (state[at] === 1));
        expect(wrong).toBe(-1);
      }),
      { numRuns: 40 },
    );
  });
});

async function extended(bytes: number, backing: Node | null = null) {
  const host = new MemoryHost();
  await createOn(host, '/image', { size: bytes, 'cluster-size': CLUSTER, 'extended-l2': true });
  return { host, image: await openOn(host, '/image', backing) };
}

describe('a write with subclusters', () => {
  it('over a backing file reads only the subclusters that it begins and ends in', async () => {
    const reads: [number, number][] = [];
    const backing = {
      name: 'backing',
      length: 4 * CLUSTER,
      read: (request: Request) => {
        reads.push([request.offset, request.length]);
        request.buffer?.fill(0xbb);
      },
    } as unknown as Node;
    const { host, image } = await extended(4 * CLUSTER, backing);
    const start = 5 * SUBCLUSTER + 100;
    await image.node.write(writeRequest(start, new Uint8Array(3 * SUBCLUSTER).fill(1)));
    expect(reads).toEqual([[5 * SUBCLUSTER, 100], [start + 3 * SUBCLUSTER, SUBCLUSTER - 100]]);
    const status = await image.node.blockStatus(5 * SUBCLUSTER, CLUSTER, false);
    expect(status).toMatchObject({ allocated: true, length: 4 * SUBCLUSTER });
    const rest = await image.node.blockStatus(9 * SUBCLUSTER, CLUSTER, false);
    expect(rest).toMatchObject({ allocated: false, data: false, zero: false });
    // The next one goes into the same cluster, beside the first.
    await image.node.write(writeRequest(20 * SUBCLUSTER, new Uint8Array(SUBCLUSTER).fill(2)));
    expect(reads).toHaveLength(2);
    const { hostOffset } = await image.node.blockStatus(20 * SUBCLUSTER, 1, false);
    expect(hostOffset).toBe((status.hostOffset ?? 0) + 15 * SUBCLUSTER);
    await image.node.close();
    expect(await checkBytes(host.fileContents('/image'))).toMatchObject({ leaks: 0 });
  });

  it('leaves a shared cluster as it is and takes its subclusters along', async () => {
    const { host, image } = await extended(4 * CLUSTER);
    const fill = (value: number, subclusters = 1) =>
      new Uint8Array(subclusters * SUBCLUSTER).fill(value);
    await image.node.write(writeRequest(4 * SUBCLUSTER, fill(1, 3)));
    await image.node.writeZeroes(zeroRequest(20 * SUBCLUSTER, SUBCLUSTER, 0));
    const clocks = { vmClockSeconds: 0, vmClockNanoseconds: 0 };
    const wish = { name: 'one', dateSeconds: 0, dateNanoseconds: 0, ...clocks };
    const { id, name } = await image.node.internalSnapshots.create(wish);
    const before = await image.read(0, CLUSTER);
    await image.node.write(writeRequest(9 * SUBCLUSTER + 512, fill(2).subarray(0, 512)));
    const now = new Uint8Array(CLUSTER);
    now.fill(1, 4 * SUBCLUSTER, 7 * SUBCLUSTER);
    now.fill(2, 9 * SUBCLUSTER + 512, 9 * SUBCLUSTER + 1024);
    expect(Buffer.compare(await image.read(0, CLUSTER), now)).toBe(0);
    await image.node.writeZeroes(zeroRequest(5 * SUBCLUSTER, SUBCLUSTER, 0));
    await image.node.internalSnapshots.apply({ id, name });
    expect(Buffer.compare(await image.read(0, CLUSTER), before)).toBe(0);
    await image.node.close();
    const result = await checkBytes(host.fileContents('/image'));
    expect(result).toMatchObject({ corruptions: 0, leaks: 0 });
  });

  it('never fills a subcluster that is data already, where others write in place', async () => {
    const { host, image } = await extended(4 * CLUSTER);
    const sector = (value: number) => new Uint8Array(512).fill(value);
    await image.node.write(writeRequest(SUBCLUSTER, new Uint8Array(SUBCLUSTER).fill(1)));
    const file = image.node.image.file as unknown as { write(request: Request): unknown };
    const write = file.write.bind(file);
    let release = (): void => undefined;
    const gate = new Promise<void>((resolve) => {
      release = resolve;
    });
    const held = (request: Request) => {
      Object.defineProperty(file, 'write', { value: write });
      return gate.then(() => write(request));
    };
    Object.defineProperty(file, 'write', { configurable: true, writable: true, value: held });
    const both = new Uint8Array(1024).fill(2);
    const first = image.node.write(writeRequest(SUBCLUSTER - 512, both));
    await image.node.write(writeRequest(SUBCLUSTER + 1024, sector(3)));
    release();
    await first;
    const now = new Uint8Array(CLUSTER);
    now.fill(1, SUBCLUSTER, 2 * SUBCLUSTER);
    now.fill(2, SUBCLUSTER - 512, SUBCLUSTER + 512);
    now.fill(3, SUBCLUSTER + 1024, SUBCLUSTER + 1536);
    expect(Buffer.compare(await image.read(0, CLUSTER), now)).toBe(0);
    await image.node.close();
    expect(await checkBytes(host.fileContents('/image'))).toMatchObject({ leaks: 0 });
  });
});
