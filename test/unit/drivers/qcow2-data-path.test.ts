// SPDX-License-Identifier: Apache-2.0
// Facts of the qcow2 data path that need no disk but a file in memory.
import { deflateRawSync } from 'node:zlib';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { QCOW2_LIMITS } from '../../../src/base/index.js';
import {
  discardRequest,
  readRequest,
  RequestFlag,
  writeRequest,
  zeroRequest,
} from '../../../src/block/index.js';
import type { Request } from '../../../src/block/index.js';
import { RunPlan } from '../../../src/drivers/formats/qcow2/data/index.js';
import { EntryKind } from '../../../src/drivers/formats/qcow2/entries.js';
import { readRefcount, writeRefcount } from '../../../src/drivers/formats/qcow2/metadata/index.js';
import { MemoryHost } from '../../../src/host/index.js';
import { checkOn } from '../../helpers/qcow2-check.js';
import { createOn } from '../../helpers/qcow2-create.js';
import type { CreateOptions } from '../../helpers/qcow2-create.js';
import { backingNode, failureOf, openOn } from '../../helpers/qcow2-node.js';
import type { OpenedImage } from '../../helpers/qcow2-node.js';

const KIB = 1024;
const CLUSTER = 64 * KIB;

interface Opened extends OpenedImage {
  readonly host: MemoryHost;
}

async function open(options: Partial<CreateOptions> = {}, backing?: Uint8Array): Promise<Opened> {
  const host = new MemoryHost();
  await createOn(host, '/image', { size: 64 * CLUSTER, ...options });
  const image = await openOn(host, '/image', backing === undefined ? null : backingNode(backing));
  return Object.assign(image, { host });
}

function bytes(length: number, value: number): Uint8Array {
  return new Uint8Array(length).fill(value);
}

async function hostOffsetOf(image: Opened, offset: number): Promise<number | undefined> {
  return (await image.node.blockStatus(offset, 1, false)).hostOffset;
}

describe('refcount widths', () => {
  it('store every value without touching a neighbour', () => {
    fc.assert(
      fc.property(fc.nat({ max: 6 }), fc.nat({ max: 63 }), fc.nat(), (order, index, seed) => {
        const view = new DataView(new ArrayBuffer(512));
        for (let at = 0; at < 512; at += 1) view.setUint8(at, (seed >> (at % 24)) & 0xff);
        const bits = 2 ** order;
        const value = bits >= 53 ? seed : seed % 2 ** bits;
        const before = Array.from({ length: 64 }, (_, at) => readRefcount(view, order, at));
        writeRefcount(view, { order, index }, value);
        before[index] = value;
        const after = Array.from({ length: 64 }, (_, at) => readRefcount(view, order, at));
        expect(after).toEqual(before);
      }),
    );
  });

  it('below eight bits count from the low end of a byte', () => {
    const view = new DataView(new ArrayBuffer(8));
    writeRefcount(view, { order: 0, index: 0 }, 1);
    writeRefcount(view, { order: 0, index: 9 }, 1);
    writeRefcount(view, { order: 2, index: 5 }, 15);
    expect([...new Uint8Array(view.buffer)]).toEqual([1, 2, 0xf0, 0, 0, 0, 0, 0]);
  });
});

describe('a plan', () => {
  async function planOf(image: Opened, offset: number, length: number): Promise<RunPlan> {
    const plan = new RunPlan(image.node.image);
    const state = image.node.image;
    const l2 = state.l2Offset(Math.floor(offset / state.geometry.l2Coverage));
    plan.find(l2 === 0 ? null : await state.l2.load(l2), offset, length);
    return plan;
  }

  it('of an empty image is one unallocated run to the end of the L2 table', async () => {
    const image = await open({ 'cluster-size': 512, size: 1024 * KIB });
    const plan = await planOf(image, 1000, 1024 * KIB - 1000);
    expect(plan).toMatchObject({ kind: EntryKind.unallocated, length: 32 * KIB - 1000 });
  });

  it('joins clusters that follow each other in the file', async () => {
    const image = await open();
    await image.node.write(writeRequest(CLUSTER, bytes(4 * CLUSTER, 1)));
    const first = await planOf(image, CLUSTER + 100, 10 * CLUSTER);
    expect(first).toMatchObject({ kind: EntryKind.data, length: 4 * CLUSTER - 100, copied: true });
    expect(first.hostOffset % CLUSTER).toBe(100);
  });

  it('refuses an entry with reserved bits by name, and the guest sees an I/O error', async () => {
    const image = await open();
    await image.node.write(writeRequest(0, bytes(CLUSTER, 1)));
    await image.node.flush();
    const l2 = image.node.image.l2Offset(0);
    const entry = new Uint8Array([0x80, 0, 0, 0, 0, 5, 2, 0]);
    await image.file.write(entry, l2);
    const again = await openOn(image.host, '/image');
    const failure = await failureOf(() => again.read(0, 512));
    expect(failure).toMatchObject({ kind: 'corrupt-image', errno: 'EIO' });
    expect(failure?.message).toContain('/image: L2 entry 0x8000000000050200');
  });

  it('refuses an L2 table beyond the end of the file', async () => {
    const image = await open();
    image.node.image.setL1(0, 1024 * CLUSTER);
    const failure = await failureOf(() => image.read(0, 512));
    expect(failure?.message).toContain('L2 table at offset 67108864 is beyond the end');
  });
});

describe('writing', () => {
  it('puts consecutive clusters side by side and sends them down as one write', async () => {
    const image = await open();
    const before = image.host.faults.count('write');
    await image.node.write(writeRequest(0, bytes(16 * CLUSTER, 7)));
    expect(image.host.faults.count('write')).toBe(before + 1);
    expect(await image.node.blockStatus(0, 64 * CLUSTER, false))
      .toMatchObject({ length: 16 * CLUSTER });
  });

  it('fills the rest of a cluster in the same write', async () => {
    const image = await open({}, bytes(3 * CLUSTER, 9));
    const before = image.host.faults.count('write');
    await image.node.write(writeRequest(CLUSTER + 512, bytes(512, 1)));
    expect(image.host.faults.count('write')).toBe(before + 1);
    const seen = await image.read(CLUSTER, CLUSTER);
    expect([seen[0], seen[512], seen[1024]]).toEqual([9, 1, 9]);
  });

  it('into space past the end of the file sends down only what the guest wrote', async () => {
    const image = await open();
    const { geometry } = image.node.image;
    await image.node.write(writeRequest(CLUSTER + 4096, bytes(4096, 1)));
    const place = (await hostOffsetOf(image, CLUSTER)) ?? 0;
    expect(image.host.fileContents('/image').length).toBe(place + 8192);
    const seen = await image.read(CLUSTER, geometry.clusterSize);
    expect([0, 4095, 4096, 8191, 8192].map((at) => seen[at])).toEqual([0, 0, 1, 1, 0]);
  });

  it('into reused space leaves nothing of what was there', async () => {
    const image = await open();
    await image.node.write(writeRequest(0, bytes(CLUSTER, 9)));
    const place = await hostOffsetOf(image, 0);
    await image.node.writeZeroes(zeroRequest(0, CLUSTER, RequestFlag.mayUnmap));
    await image.node.flush();
    await image.node.write(writeRequest(4096, bytes(512, 1)));
    expect(await hostOffsetOf(image, 0)).toBe(place);
    const seen = await image.read(0, CLUSTER);
    expect([0, 4096, 4608, CLUSTER - 1].map((at) => seen[at])).toEqual([0, 1, 0, 0]);
  });

  it('answers inline when tables are cached and the file answers inline', async () => {
    const image = await open();
    expect(image.node.write(writeRequest(5, bytes(100, 1)))).toBeUndefined();
    expect(image.node.write(writeRequest(5, bytes(100, 2)))).toBeUndefined();
    expect(image.node.read(readRequest(0, bytes(200, 0)))).toBeUndefined();
  });

  it('copies a cluster whose entry is not marked as ours alone', async () => {
    const image = await open();
    await image.node.write(writeRequest(0, bytes(CLUSTER, 1)));
    const old = await hostOffsetOf(image, 0);
    const l2 = await image.node.image.l2.load(image.node.image.l2Offset(0));
    l2.view.setUint8(0, 0);
    await image.node.write(writeRequest(0, bytes(512, 2)));
    expect(await hostOffsetOf(image, 0)).not.toBe(old);
    expect((await image.read(0, 1024)).subarray(510, 514)).toEqual(new Uint8Array([2, 2, 1, 1]));
  });

  it('never lands on metadata that a hostile entry names', async () => {
    const image = await open();
    await image.node.write(writeRequest(0, bytes(CLUSTER, 1)));
    const { image: state } = image.node;
    const l2 = await state.l2.load(state.l2Offset(0));
    l2.view.setUint32(4, state.refcountTableOffset);
    const table = image.host.fileContents('/image').slice(CLUSTER, 2 * CLUSTER);
    const failure = await failureOf(() => image.node.write(writeRequest(0, bytes(512, 0xff))));
    expect(failure?.kind).toBe('corrupt-image');
    expect(failure?.message).toContain('overlaps the refcount table');
    expect(image.host.fileContents('/image').slice(CLUSTER, 2 * CLUSTER)).toEqual(table);
    expect((await failureOf(() => image.node.write(writeRequest(0, bytes(1, 1)))))?.kind).toBe(
      'corrupt-image',
    );
    // Incompatible bit 1 of a version 3 header.
    expect(image.host.fileContents('/image')[79]).toBe(2);
  });

  it('does not trust refcounts that call the L1 table free', async () => {
    const image = await open();
    const { image: state } = image.node;
    const block = await state.refcountBlocks.load(2 * CLUSTER);
    writeRefcount(block.view, { order: 4, index: state.l1Offset / CLUSTER }, 0);
    const failure = await failureOf(() => image.node.write(writeRequest(0, bytes(512, 1))));
    expect(failure?.message).toContain('overlaps the active L1 table');
  });
});

describe('a lease', () => {
  it('of a read in flight keeps its cluster from being reused', async () => {
    const image = await open();
    await image.node.write(writeRequest(0, bytes(CLUSTER, 1)));
    await image.node.flush();
    const held = holdReads(image);
    const buffer = bytes(512, 0);
    const reading = image.node.read(readRequest(0, buffer));
    held.stop();
    await image.node.discard(discardRequest(0, CLUSTER));
    await image.node.flush();
    await image.node.write(writeRequest(CLUSTER, bytes(4 * CLUSTER, 2)));
    held.release();
    await reading;
    expect(buffer).toEqual(bytes(512, 1));
    await image.node.close();
    expect(await checkOn(image.host, '/image')).toMatchObject({ corruptions: 0, leaks: 0 });
  });

  it('taken from outside holds freed clusters until it is released', async () => {
    const image = await open();
    await image.node.write(writeRequest(0, bytes(CLUSTER, 1)));
    const place = await hostOffsetOf(image, 0);
    const lease = image.node.lease();
    await image.node.discard(discardRequest(0, CLUSTER));
    await image.node.flush();
    await image.node.write(writeRequest(0, bytes(CLUSTER, 2)));
    expect(await hostOffsetOf(image, 0)).not.toBe(place);
    lease.release();
    await image.node.flush();
    await image.node.write(writeRequest(CLUSTER, bytes(CLUSTER, 3)));
    expect(await hostOffsetOf(image, CLUSTER)).toBe(place);
  });

  /** Lets reads of the file wait until they are released. */
  function holdReads(image: Opened): { release(): void; stop(): void } {
    const file = image.node.image.file as unknown as { read(request: Request): unknown };
    const read = file.read.bind(file);
    let release = (): void => undefined;
    const gate = new Promise<void>((resolve) => {
      release = resolve;
    });
    Object.defineProperty(file, 'read', {
      configurable: true,
      writable: true,
      value: (request: Request) => gate.then(() => read(request)),
    });
    return { release, stop: () => void Object.defineProperty(file, 'read', { value: read }) };
  }
});

describe('a reservation', () => {
  it('shows nothing before it is linked and gives everything back when dropped', async () => {
    const image = await open();
    const reservation = await image.node.reserve(0, 4 * CLUSTER);
    for (const piece of reservation?.pieces ?? []) {
      expect(piece.fresh).toBe(true);
      await piece.file.write(bytes(piece.length, 5), piece.hostOffset);
    }
    expect((await image.read(0, 1))[0]).toBe(0);
    reservation?.abandon();
    await image.node.close();
    expect(await checkOn(image.host, '/image')).toMatchObject({ corruptions: 0, leaks: 0 });
  });

  it('loses the clusters that the guest wrote meanwhile, and only those', async () => {
    const image = await open();
    const reservation = await image.node.reserve(0, 3 * CLUSTER);
    const pieces = reservation?.pieces ?? [];
    for (const piece of pieces) await piece.file.write(bytes(piece.length, 5), piece.hostOffset);
    await image.node.write(writeRequest(CLUSTER, bytes(CLUSTER, 8)));
    await reservation?.link(pieces.map(() => 'written'));
    const seen = await image.read(0, 3 * CLUSTER);
    expect([seen[0], seen[CLUSTER], seen[2 * CLUSTER]]).toEqual([5, 8, 5]);
    await image.node.close();
    expect(await checkOn(image.host, '/image')).toMatchObject({ corruptions: 0, leaks: 0 });
  });

  it('loses a cluster that was written and discarded again', async () => {
    const image = await open();
    const reservation = await image.node.reserve(0, CLUSTER);
    const pieces = reservation?.pieces ?? [];
    for (const piece of pieces) await piece.file.write(bytes(piece.length, 5), piece.hostOffset);
    await image.node.write(writeRequest(0, bytes(CLUSTER, 8)));
    await image.node.discard(discardRequest(0, CLUSTER));
    await reservation?.link(pieces.map(() => 'written'));
    expect((await image.read(0, 1))[0]).toBe(0);
  });

  it('of clusters that are ours already is written in place', async () => {
    const image = await open();
    await image.node.write(writeRequest(0, bytes(2 * CLUSTER, 1)));
    const place = await hostOffsetOf(image, 512);
    const reservation = await image.node.reserve(512, CLUSTER);
    expect(reservation?.pieces).toMatchObject([
      { offset: 512, length: CLUSTER, hostOffset: place, fresh: false },
    ]);
    reservation?.abandon();
  });

  it('ending in zeroes sets the zero flag, unless the target is known to be zero', async () => {
    const over = await open({}, bytes(64 * CLUSTER, 3));
    const first = await over.node.reserve(0, CLUSTER);
    await first?.link(['zero']);
    expect((await over.read(0, 1))[0]).toBe(0);
    expect(await over.node.blockStatus(0, CLUSTER, false))
      .toMatchObject({ zero: true, allocated: true });
    const alone = await open();
    const second = await alone.node.reserve(0, CLUSTER);
    await second?.link([{ zeroRanges: [0, CLUSTER], holes: true }]);
    expect(await alone.node.blockStatus(0, CLUSTER, false)).toMatchObject({ allocated: false });
    const third = await alone.node.reserve(0, CLUSTER);
    await third?.link(['zero']);
    expect(await alone.node.blockStatus(0, CLUSTER, false)).toMatchObject({ allocated: true });
  });

  it('zeroes in part of a cluster that is not allocated make it a zero cluster', async () => {
    const { node } = await open();
    await node.writeZeroes(zeroRequest(512, 512, 0));
    expect(await node.blockStatus(0, CLUSTER, false))
      .toMatchObject({ zero: true, allocated: true });
    expect((await node.check('none')).corruptions).toBe(0);
  });

  it('of the last cluster leaves no old bytes past the end of the image', async () => {
    const image = await open({ size: 3 * CLUSTER + 512 });
    const dropped = await image.node.reserve(0, 3 * CLUSTER);
    for (const { file, hostOffset, length } of dropped?.pieces ?? []) {
      await file.write(bytes(length, 0xee), hostOffset);
    }
    dropped?.abandon();
    const reservation = await image.node.reserve(3 * CLUSTER, 512);
    const [piece] = reservation?.pieces ?? [];
    await piece?.file.write(bytes(512, 5), piece.hostOffset);
    await reservation?.link(['written']);
    const stored = image.host.fileContents('/image').subarray(piece?.hostOffset);
    expect([...new Set(stored.subarray(0, 512))]).toEqual([5]);
    expect([...new Set(stored.subarray(512, CLUSTER))]).toEqual([0]);
  });

  it.each(['v2', 'v3'] as const)('written in part shows no old bytes (%s)', async (version) => {
    const image = await open({ version }, bytes(64 * CLUSTER, 3));
    await image.node.write(writeRequest(8 * CLUSTER, bytes(4 * CLUSTER, 0xee)));
    const dropped = await image.node.reserve(0, 4 * CLUSTER);
    const pieces = dropped?.pieces ?? [];
    for (const piece of pieces) await piece.file.write(bytes(piece.length, 0xee), piece.hostOffset);
    dropped?.abandon();
    const reservation = await image.node.reserve(0, 4 * CLUSTER);
    const [piece] = reservation?.pieces ?? [];
    expect(piece).toMatchObject({ length: 4 * CLUSTER, fresh: true });
    await piece?.file.write(bytes(CLUSTER, 5), piece.hostOffset);
    await piece?.file.write(bytes(512, 6), piece.hostOffset + 4 * CLUSTER - 512);
    await reservation?.link([{ zeroRanges: [CLUSTER, 3 * CLUSTER - 512] }]);
    const seen = await image.read(0, 4 * CLUSTER);
    expect([...new Set(seen.subarray(0, CLUSTER))]).toEqual([5]);
    expect([...new Set(seen.subarray(CLUSTER, 4 * CLUSTER - 512))]).toEqual([0]);
    expect([...new Set(seen.subarray(4 * CLUSTER - 512))]).toEqual([6]);
    const middle = await image.node.blockStatus(CLUSTER, CLUSTER, false);
    expect(middle).toMatchObject({ allocated: true, zero: version === 'v3' });
    await image.node.close();
    expect(await checkOn(image.host, '/image')).toMatchObject({ corruptions: 0, leaks: 0 });
  });

  it.each(['v2', 'v3'] as const)('of zeroes loses to a waiting guest (%s)', async (version) => {
    // So many L2 tables are dirty that whoever comes next waits for a metadata flush.
    const host = new MemoryHost({ seed: 1, laterChance: 1 });
    const size = (QCOW2_LIMITS.dirtyTables + 8) * 32 * KIB;
    await createOn(host, '/image', { size, version, 'cluster-size': 512 });
    const image = await openOn(host, '/image', backingNode(bytes(size, 3)));
    const reservation = await image.node.reserve(0, 4 * KIB);
    const { l2, refcountBlocks } = image.node.image;
    const crowd = QCOW2_LIMITS.dirtyTables;
    for (let at = 32 * KIB; l2.dirtyCount + refcountBlocks.dirtyCount <= crowd; at += 32 * KIB) {
      await image.node.write(writeRequest(at, bytes(512, 1)));
    }
    const guest = image.node.write(writeRequest(0, bytes(512, 8)));
    await reservation?.link(reservation.pieces.map(() => 'zero'));
    await guest;
    const seen = await image.read(0, 4 * KIB);
    expect([seen[0], seen[512], seen[2 * KIB], seen[4 * KIB - 1]]).toEqual([8, 0, 0, 0]);
    await image.node.close();
    expect(await checkOn(host, '/image')).toMatchObject({ corruptions: 0, leaks: 0 });
  });
});

describe('compressed clusters', () => {
  it('share a host cluster, and straddle into the next one', async () => {
    const image = await open();
    const noise = bytes(CLUSTER, 0).map((_, at) => (Math.imul(at, 2654435761) >>> 24) & 0x3f);
    for (let cluster = 0; cluster < 6; cluster += 1) {
      const request = writeRequest(cluster * CLUSTER, noise, RequestFlag.compressed);
      await image.node.write(request);
    }
    const extents = (await image.node.planExtents(0, 6 * CLUSTER)) ?? [];
    const starts = extents.map((extent) => (extent.kind === 'compressed' ? extent.hostOffset : 0));
    expect(extents).toHaveLength(6);
    expect(new Set(starts.map((start) => Math.floor(start / CLUSTER))).size).toBeLessThan(6);
    expect(await image.read(0, CLUSTER)).toEqual(noise);
    await image.node.close();
    const result = await checkOn(image.host, '/image');
    expect(result).toMatchObject({ corruptions: 0, leaks: 0, compressedClusters: 6 });
  });

  it('take payloads that somebody else deflated', async () => {
    const image = await open();
    const payload = deflateRawSync(bytes(CLUSTER, 4), { windowBits: 12 });
    await image.node.writeDeflated(CLUSTER, payload);
    expect(await image.read(CLUSTER, CLUSTER)).toEqual(bytes(CLUSTER, 4));
  });

  it('are stored plain when deflate gains nothing', async () => {
    const image = await open();
    const noise = bytes(CLUSTER, 0);
    let state = 1;
    for (let at = 0; at < noise.length; at += 1) {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      noise[at] = state >>> 24;
    }
    await image.node.write(writeRequest(0, noise, RequestFlag.compressed));
    expect(await image.node.blockStatus(0, CLUSTER, false)).toMatchObject({ compressed: false });
    expect(await image.read(0, CLUSTER)).toEqual(noise);
  });

  it('are refused for parts of clusters', async () => {
    const image = await open();
    const request = writeRequest(512, bytes(CLUSTER, 1), RequestFlag.compressed);
    expect((await failureOf(() => image.node.write(request)))?.kind).toBe('invalid-option');
  });
});

describe('zeroes and discards', () => {
  it('keep the host cluster unless unmapping is allowed', async () => {
    const image = await open();
    await image.node.write(writeRequest(0, bytes(2 * CLUSTER, 1)));
    const place = await hostOffsetOf(image, 0);
    await image.node.writeZeroes(zeroRequest(0, CLUSTER));
    expect(await image.node.blockStatus(0, 512, false))
      .toMatchObject({ zero: true, hostOffset: place });
    await image.node.writeZeroes(zeroRequest(CLUSTER, CLUSTER, RequestFlag.mayUnmap));
    expect(await hostOffsetOf(image, CLUSTER)).toBeUndefined();
    await image.node.write(writeRequest(10, bytes(1, 6)));
    expect(await hostOffsetOf(image, 0)).toBe(place);
    expect((await image.read(0, 12)).subarray(9)).toEqual(new Uint8Array([0, 6, 0]));
  });

  it('without fallback are refused where data would have to be written', async () => {
    const image = await open({}, bytes(CLUSTER, 1));
    const request = zeroRequest(0, 512, RequestFlag.noFallback);
    expect((await failureOf(() => image.node.writeZeroes(request)))?.kind).toBe('unsupported');
  });

  it('a discard of version 2 over a backing file uncovers nothing', async () => {
    const image = await open({ version: 'v2' } as never, bytes(CLUSTER, 9));
    await image.node.write(writeRequest(0, bytes(CLUSTER, 1)));
    await image.node.discard(discardRequest(0, CLUSTER));
    expect((await image.read(0, 1))[0]).toBe(1);
  });

  it('punch the file only once the change is durable', async () => {
    const image = await open();
    await image.node.write(writeRequest(0, bytes(CLUSTER, 1)));
    await image.node.discard(discardRequest(0, CLUSTER));
    expect(image.host.faults.count('discard')).toBe(0);
    await image.node.flush();
    await image.node.close();
    expect(image.host.faults.count('discard')).toBe(1);
  });
});

describe('growing', () => {
  it('moves the L1 table, keeps the data and hides a longer backing file', async () => {
    const image = await open({ 'cluster-size': 512, size: 10_240 }, bytes(100 * KIB, 9));
    await image.node.write(writeRequest(0, bytes(700, 1)));
    await image.node.truncate(4096 * KIB, { exact: true, preallocation: 'off' });
    const seen = await image.read(0, 120 * KIB);
    const looked = [0, 700, 10_239, 10_240, 99 * KIB].map((at) => seen[at]);
    expect(looked).toEqual([1, 9, 9, 0, 0]);
    await image.node.write(writeRequest(4095 * KIB, bytes(KIB, 5)));
    await image.node.close();
    expect(await checkOn(image.host, '/image')).toMatchObject({ corruptions: 0, leaks: 0 });
    const again = await openOn(image.host, '/image');
    expect(again.node.length).toBe(4096 * KIB);
    expect((await again.read(4095 * KIB, KIB))[0]).toBe(5);
  });
});
