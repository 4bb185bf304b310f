// SPDX-License-Identifier: Apache-2.0
// Block status in batches says what it says one by one, whatever lies in the tables; what is
// remembered of a file that stays as it is is what the host says.
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Permission, settle } from '../../src/base/index.js';
import {
  discardRequest,
  RequestFlag,
  StatusFlag,
  StatusRuns,
  writeRequest,
  zeroRequest,
} from '../../src/block/index.js';
import type { BlockStatus } from '../../src/block/index.js';
import { KnownExtents } from '../../src/drivers/protocols/file/known-extents.js';
import { FileNode } from '../../src/drivers/protocols/file/node.js';
import type { FileNodeParts } from '../../src/drivers/protocols/file/node.js';
import { MemoryHost } from '../../src/host/index.js';
import type { HostFile } from '../../src/host/index.js';
import { createOn } from '../helpers/qcow2-create.js';
import { backingNode, openOn } from '../helpers/qcow2-node.js';
import type { OpenedImage } from '../helpers/qcow2-node.js';

const CLUSTER = 16_384;
const CLUSTERS = 40;
const SIZE = CLUSTERS * CLUSTER - 512;

interface Step {
  readonly kind: 'write' | 'zero' | 'discard' | 'compress' | 'punch';
  readonly cluster: number;
  readonly count: number;
  readonly within: number;
}

const steps: fc.Arbitrary<Step> = fc.record({
  kind: fc.constantFrom('write', 'zero', 'discard', 'compress', 'punch'),
  cluster: fc.nat({ max: CLUSTERS - 6 }),
  count: fc.integer({ min: 1, max: 4 }),
  within: fc.constantFrom(0, 512, 4096),
});

async function play({ node, file }: OpenedImage, step: Step): Promise<void> {
  const offset = step.cluster * CLUSTER;
  const length = step.count * CLUSTER;
  const data = new Uint8Array(length).fill(0x5a);
  if (step.kind === 'write') await node.write(writeRequest(offset + step.within, data));
  if (step.kind === 'zero') {
    await node.writeZeroes(zeroRequest(offset + step.within, length, RequestFlag.mayUnmap));
  }
  if (step.kind === 'discard') await node.discard(discardRequest(offset, length));
  if (step.kind === 'compress') {
    const packed = data.subarray(0, CLUSTER);
    await node.write(writeRequest(offset, packed, RequestFlag.compressed));
  }
  if (step.kind === 'punch') {
    const { hostOffset, data: isData } = await node.blockStatus(offset, 512, false);
    await node.flush();
    if (isData && hostOffset !== undefined) await file.discard(hostOffset, CLUSTER);
  }
}

function flagsOf(status: BlockStatus): number {
  return (
    (status.allocated ? StatusFlag.allocated : 0) |
    (status.data ? StatusFlag.data : 0) |
    (status.zero ? StatusFlag.zero : 0) |
    (status.compressed ? StatusFlag.compressed : 0)
  );
}

type Piece = readonly [length: number, flags: number, hostOffset: number];

/** Neighbours that go on become one, as in a StatusRuns. */
function joined(pieces: readonly Piece[]): Piece[] {
  const runs: Piece[] = [];
  for (const piece of pieces) {
    const last = runs.at(-1);
    const next = last === undefined || last[2] === -1 ? -1 : last[2] + last[0];
    if (last !== undefined && last[1] === piece[1] && next === piece[2]) {
      runs[runs.length - 1] = [last[0] + piece[0], last[1], last[2]];
    } else {
      runs.push(piece);
    }
  }
  return runs;
}

async function oneByOne({ node }: OpenedImage, start: number): Promise<Piece[]> {
  const pieces: Piece[] = [];
  for (let at = start; at < SIZE; ) {
    const status = await node.blockStatus(at, SIZE - at, true);
    const { hostOffset, file, recurse } = status;
    const isAsked = recurse === true && file !== undefined && hostOffset !== undefined;
    const below = isAsked ? await file.blockStatus(hostOffset, status.length, true) : null;
    const length = Math.min(status.length, below?.length ?? status.length);
    const zero = below === null ? status.zero : below.zero;
    pieces.push([length, flagsOf({ ...status, zero }), hostOffset ?? -1]);
    at += length;
  }
  return joined(pieces);
}

async function inBatches({ node }: OpenedImage, start: number): Promise<Piece[]> {
  const pieces: Piece[] = [];
  const runs = new StatusRuns({ exact: true, placed: true });
  for (let at = start; at < SIZE; ) {
    runs.clear();
    await settle(node.statusRuns(at, SIZE - at, runs), () => undefined);
    expect(runs.count).toBeGreaterThan(0);
    for (let index = 0; index < runs.count; index += 1) {
      const length = runs.lengths[index] ?? 0;
      pieces.push([length, runs.flags[index] ?? 0, runs.hostOffsets[index] ?? 0]);
      at += length;
    }
  }
  return joined(pieces);
}

describe('block status in batches', () => {
  it('is that of one question after another', async () => {
    const history = fc.array(steps, { minLength: 1, maxLength: 12 });
    const start = fc.nat({ max: SIZE / 512 - 1 }).map((sector) => sector * 512);
    await fc.assert(
      fc.asyncProperty(
        history, start, fc.boolean(), fc.boolean(), fc.nat(),
        async (done, from, extended, backed, seed) => {
          const host = new MemoryHost({ seed });
          const base = backed ? backingNode(new Uint8Array(SIZE / 2)) : null;
          const options = { size: SIZE, 'cluster-size': CLUSTER, 'extended-l2': extended };
          await createOn(host, '/image', options);
          const first = await openOn(host, '/image', base);
          for (const step of done) await play(first, step);
          await first.node.close();
          const image = await openOn(host, '/image', base);
          expect(await inBatches(image, from)).toEqual(await oneByOne(image, from));
          await image.node.close();
        },
      ),
      { numRuns: 150 },
    );
  }, 60_000);

  it('gives what comes before a bad entry, and then the error', async () => {
    const host = new MemoryHost();
    await createOn(host, '/image', { size: SIZE, 'cluster-size': CLUSTER });
    const image = await openOn(host, '/image');
    await image.node.write(writeRequest(0, new Uint8Array(3 * CLUSTER).fill(1)));
    await image.node.flush();
    const entry = Buffer.from('8000000000000200', 'hex');
    await image.file.write(entry, image.node.image.l2Offset(0) + 16);
    const again = await openOn(host, '/image');
    const runs = new StatusRuns({ exact: true, placed: true });
    await again.node.statusRuns(0, SIZE, runs);
    expect([runs.count, runs.lengths[0]]).toEqual([1, 2 * CLUSTER]);
    runs.clear();
    const rest = async (): Promise<void> => again.node.statusRuns(2 * CLUSTER, CLUSTER, runs);
    await expect(rest()).rejects.toThrow('L2 entry 0x8000000000000200 for guest offset 32768');
  });
});

describe('extents of a file that stays as it is', () => {
  it('are those of the host, in whatever order they are asked for', () => {
    const extents = fc.array(fc.integer({ min: 1, max: 9 }), { minLength: 1, maxLength: 90 });
    const asked = fc.array(fc.nat({ max: 500 }), { maxLength: 60 });
    fc.assert(
      fc.property(extents, fc.boolean(), fc.boolean(), asked, (lengths, ...rest) => {
        const [firstIsHole, cut, places] = rest;
        const ends: number[] = [];
        for (const length of lengths) ends.push((ends.at(-1) ?? 0) + length);
        const size = ends.at(-1) ?? 0;
        const file = {
          size: () => size,
          extent(offset: number, length: number) {
            const index = ends.findIndex((end) => end > offset);
            const isHole = firstIsHole === (index % 2 === 0);
            const rest = Math.min((ends[index] ?? 0) - offset, length);
            return { kind: isHole ? 'hole' : 'data', length: cut ? Math.min(2, rest) : rest };
          },
        } as unknown as HostFile;
        const known = new KnownExtents(file);
        for (const place of places) {
          const span = known.at(place);
          const index = ends.findIndex((end) => end > place);
          const isHole = index < 0 || firstIsHole === (index % 2 === 0);
          expect(span < 0).toBe(isHole);
          const most = index < 0 ? Infinity : (ends[index] ?? 0) - place;
          expect(Math.abs(span)).toBeGreaterThan(0);
          expect(Math.abs(span)).toBeLessThanOrEqual(most);
          if (!cut) expect(Math.abs(span)).toBe(most);
        }
      }),
    );
  });

  it.each([
    ['asked again while somebody may write', Permission.all, true],
    ['asked once while locks keep writers out', Permission.consistentRead, false],
  ])('the host is %s', (_, shared, isAskedAgain) => {
    let kind = 'hole';
    const file = {
      capabilities: { locks: true, extents: true },
      lock: () => undefined,
      size: () => 8192,
      extent: (_offset: number, length: number) => ({ kind, length }),
    } as unknown as HostFile;
    const parts = { node: { name: 'file' }, file, locked: true, flags: {}, openAgain: null };
    const node = new FileNode({ ...parts, taken: 0 } as unknown as FileNodeParts);
    node.setPermissions({ taken: Permission.consistentRead, shared });
    expect(node.dataSpan(0, 512)).toBe(-512);
    kind = 'data';
    expect(node.dataSpan(512, 512)).toBe(isAskedAgain ? 512 : -512);
    node.setPermissions({ taken: Permission.write, shared });
    expect(node.dataSpan(1024, 512)).toBe(512);
  });
});
