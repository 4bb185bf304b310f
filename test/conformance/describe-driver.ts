// SPDX-License-Identifier: Apache-2.0
// The suite that every driver must pass; driver.test.ts has one line for each.
//
// Each property runs on simulated hosts that answer inline and on ones that answer later in seeded
// order, so both ways of every driver are taken.
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import {
  readRequest,
  RequestFlag,
  type Backend,
  type Driver,
  type Extent,
  type Graph,
  type Node,
  type NodeOptions,
} from '../../src/block/index.js';
import { makeSectorCipher } from '../../src/crypto/index.js';
import { errorOf, graphOn, MemoryHost, pattern, READ_WRITE } from '../helpers/graph.js';
import { runs } from '../helpers/seeds.js';

export interface DriverCase {
  readonly name: string;
  /** Bytes of the node; a multiple of 512. */
  readonly size: number;
  readonly drivers?: readonly Driver<never>[];
  /** Makes the image and gives the options that open it. */
  create(host: MemoryHost, graph: Graph): Promise<NodeOptions>;
  /** What is written is read again. */
  readonly stores: boolean;
}

interface Opened {
  readonly graph: Graph;
  readonly host: MemoryHost;
  readonly node: Node;
  readonly user: Backend;
  readonly options: NodeOptions;
}

async function open(driver: DriverCase, seed: number | null): Promise<Opened> {
  const host = seed === null ? new MemoryHost() : new MemoryHost({ seed, laterChance: 0.5 });
  const graph = graphOn(host, driver.drivers ?? []);
  const options = { ...(await driver.create(host, graph)), discard: 'unmap' };
  const node = await graph.open(options);
  return { graph, host, node, options, user: await graph.attach(node, 'guest', READ_WRITE) };
}

async function readAll(user: Backend | Node): Promise<Uint8Array> {
  const { length } = 'inFlight' in user ? user : user.node;
  const bytes = new Uint8Array(length).fill(0xee);
  if ('inFlight' in user) await user.read(readRequest(0, bytes));
  else await user.read(0, bytes);
  return bytes;
}

const seeds = fc.option(fc.nat(), { nil: null });

interface Operation {
  readonly kind: 'write' | 'zero' | 'discard' | 'flush' | 'fua';
  readonly offset: number;
  readonly length: number;
  readonly seed: number;
}

function operations(size: number): fc.Arbitrary<Operation[]> {
  return fc.array(
    fc.record({
      kind: fc.constantFrom('write', 'write', 'zero', 'discard', 'flush', 'fua'),
      offset: fc.nat(size - 1),
      length: fc.nat(Math.min(size, 200_000)),
      seed: fc.nat(1000),
    }),
    { maxLength: 15 },
  );
}

/** Applies one operation to the node and to the model; a discarded range may read either way. */
async function apply(operation: Operation, user: Backend, model: Uint8Array): Promise<void> {
  const { kind, offset, seed } = operation;
  const length = Math.min(operation.length, model.length - offset);
  if (kind === 'flush') {
    await user.flush();
  } else if (kind === 'zero') {
    await user.writeZeroes(offset, length, seed % 2 === 0 ? RequestFlag.mayUnmap : 0);
    model.fill(0, offset, offset + length);
  } else if (kind === 'discard') {
    await user.discard(offset, length);
    const after = new Uint8Array(length);
    await user.read(offset, after);
    // An assertion for each byte would take a minute.
    const wrong = after.findIndex((byte, at) => byte !== 0 && byte !== model[offset + at]);
    expect(wrong).toBe(-1);
    model.set(after, offset);
  } else {
    const data = pattern(length, seed);
    await user.write(offset, data, kind === 'fua' ? RequestFlag.fua : 0);
    model.set(data, offset);
  }
}

async function bytesOfExtents(extents: readonly Extent[], node: Node): Promise<Uint8Array | null> {
  const parts: Uint8Array[] = [];
  for (const extent of extents) {
    const part = new Uint8Array(extent.length);
    if (extent.kind === 'compressed') return null;
    if (extent.kind === 'backing' && node.backing !== null) return null;
    if (extent.kind === 'data') await extent.file.read(part, extent.hostOffset);
    if (extent.kind === 'data' || extent.kind === 'unwritten') {
      const { cipher } = extent;
      if (cipher !== undefined) {
        makeSectorCipher(cipher.key).decrypt(part, cipher.offset / cipher.key.sectorBytes);
      }
    }
    parts.push(part);
  }
  return new Uint8Array(Buffer.concat(parts));
}

async function checkStatus(node: Node, content: Uint8Array): Promise<void> {
  for (let offset = 0; offset < content.length; ) {
    const status = await node.blockStatus(offset, content.length - offset, true);
    expect(status.length).toBeGreaterThan(0);
    expect(offset + status.length).toBeLessThanOrEqual(content.length);
    if (status.zero || (!status.allocated && node.backing === null)) {
      const part = Buffer.from(content.subarray(offset, offset + status.length));
      expect(part.equals(Buffer.alloc(part.length))).toBe(true);
    }
    if (status.hostOffset !== undefined) expect(status.file).toBeDefined();
    offset += status.length;
  }
}

async function checkPlan(node: Node, content: Uint8Array): Promise<void> {
  const lease = node.lease();
  try {
    const extents = await node.planExtents(0, node.length);
    if (extents === null) return;
    const covered = extents.reduce((sum, extent) => sum + extent.length, 0);
    expect(covered).toBe(node.length);
    const bytes = await bytesOfExtents(extents, node);
    if (bytes !== null) expect(Buffer.from(bytes).equals(Buffer.from(content))).toBe(true);
  } finally {
    lease.release();
  }
}

export function describeDriver(driver: DriverCase): void {
  const { size } = driver;
  describe(`driver ${driver.name}`, () => {
    it('has the size it was made with and refuses what goes beyond', async () => {
      const { node, user, graph } = await open(driver, null);
      expect(node.length).toBe(size);
      for (const offset of [size, size - 100, 2 ** 50]) {
        expect(await errorOf(() => user.read(offset, new Uint8Array(512)))).toMatchObject({
          kind: 'out-of-range',
        });
        expect(await errorOf(() => user.write(offset, new Uint8Array(512)))).toMatchObject({
          kind: 'out-of-range',
        });
      }
      expect(await user.read(size, new Uint8Array(0))).toBeUndefined();
      await user.detach();
      await graph.closeAll();
    });

    it('refuses requests once it is closed, and closing frees its files', async () => {
      const { node, user, graph, options } = await open(driver, null);
      await user.detach();
      await graph.close(node);
      expect(await errorOf(() => node.read(readRequest(0, new Uint8Array(16))))).toMatchObject({
        kind: 'closed',
      });
      const again = await graph.open(options);
      await (await graph.attach(again, 'again', READ_WRITE)).detach();
      await graph.closeAll();
    });

    it('refuses writes when it is read-only', async () => {
      const { node, user, graph, options } = await open(driver, null);
      await user.detach();
      await graph.close(node);
      const readOnly = await graph.open({ ...options, 'read-only': true });
      expect(await errorOf(() => graph.attach(readOnly, 'w', READ_WRITE))).toMatchObject({
        message: 'Block node is read-only',
      });
      await graph.closeAll();
    });

    if (driver.stores) describeStorage(driver);
    else describeSink(driver);
  });
}

function describeSink(driver: DriverCase): void {
  it('reads zeroes whatever was written', async () => {
    const { user, node } = await open(driver, 1);
    await user.write(0, pattern(4096));
    await user.flush();
    const content = await readAll(user);
    expect(Buffer.from(content).equals(Buffer.alloc(driver.size))).toBe(true);
    await checkStatus(node, content);
    await checkPlan(node, content);
  });
}

function describeStorage(driver: DriverCase): void {
  const { size } = driver;
  it('reads what was written, and status, plan and a reopen agree', async () => {
    await fc.assert(
      fc.asyncProperty(seeds, operations(size), async (seed, list) => {
        const { graph, user, node, options } = await open(driver, seed);
        const model = await readAll(user);
        for (const operation of list) await apply(operation, user, model);
        const content = await readAll(user);
        expect(Buffer.from(content).equals(Buffer.from(model))).toBe(true);
        await user.flush();
        await checkStatus(node, content);
        await checkPlan(node, content);
        await user.detach();
        await graph.close(node);
        const again = await graph.open({ ...options, 'read-only': true });
        expect(Buffer.from(await readAll(again)).equals(Buffer.from(model))).toBe(true);
        await graph.closeAll();
      }),
      { numRuns: runs(8, 100) },
    );
  });

  it('keeps requests apart that run at the same time', async () => {
    await fc.assert(
      fc.asyncProperty(fc.nat(), fc.integer({ min: 2, max: 12 }), async (seed, count) => {
        const { graph, user, node } = await open(driver, seed);
        const share = Math.floor(size / count);
        const pieces = Array.from({ length: count }, (_, index) => ({
          offset: index * share + (index % 3) * 7,
          data: pattern(Math.min(share - 20, 50_000), index + 1),
        }));
        await Promise.all(
          pieces.flatMap(({ offset, data }, index) => [
            user.write(offset, data),
            index % 2 === 0 ? user.flush() : user.read(0, new Uint8Array(512)),
          ]),
        );
        for (const { offset, data } of pieces) {
          const buffer = new Uint8Array(data.length);
          await user.read(offset, buffer);
          expect(Buffer.from(buffer).equals(Buffer.from(data))).toBe(true);
        }
        expect(node.inFlight).toBe(0);
        await user.detach();
        await graph.closeAll();
      }),
      { numRuns: runs(5, 50) },
    );
  });

  it('a reservation is invisible until it is linked, and gone when abandoned', async () => {
    const { user, node, graph } = await open(driver, null);
    const length = Math.min(131_072, size);
    await user.write(0, pattern(length, 3));
    const abandoned = await node.reserve(0, length);
    abandoned?.abandon();
    const before = new Uint8Array(length);
    await user.read(0, before);
    expect(Buffer.from(before).equals(Buffer.from(pattern(length, 3)))).toBe(true);
    const reservation = await node.reserve(0, length);
    if (reservation !== null) {
      const data = pattern(length, 4);
      for (const piece of reservation.pieces) {
        const { cipher } = piece;
        const bytes = data.slice(piece.offset, piece.offset + piece.length);
        if (cipher !== undefined) {
          makeSectorCipher(cipher.key).encrypt(bytes, cipher.offset / cipher.key.sectorBytes);
        }
        await piece.file.write(bytes, piece.hostOffset);
        piece.file.noteForeignWrite();
      }
      await reservation.link(reservation.pieces.map(() => 'written' as const));
      await user.read(0, before);
      expect(Buffer.from(before).equals(Buffer.from(data))).toBe(true);
      const zeroed = await node.reserve(0, length);
      await zeroed?.link(zeroed.pieces.map(() => 'zero' as const));
      await user.read(0, before);
      expect(Buffer.from(before).equals(Buffer.alloc(length))).toBe(true);
    }
    await user.detach();
    await graph.closeAll();
  });
}
