// SPDX-License-Identifier: Apache-2.0
// The qcow2 data path against a plain byte array: any mix of requests, side by side, with the file
// answering inline or later, reads as the array does, and leaves an image without errors or leaks.
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  discardRequest,
  RequestFlag,
  writeRequest,
  zeroRequest,
} from '../../src/block/index.js';
import { SeededRandom } from '../../src/base/index.js';
import { MemoryHost } from '../../src/host/index.js';
import { checkOn } from '../helpers/qcow2-check.js';
import { createOn } from '../helpers/qcow2-create.js';
import { backingNode, openOn } from '../helpers/qcow2-node.js';
import type { OpenedImage } from '../helpers/qcow2-node.js';
import { runs } from '../helpers/seeds.js';

type Kind = 'write' | 'zero' | 'unmap' | 'discard' | 'compress' | 'flush' | 'reserve' | 'reopen';

interface Operation {
  readonly kind: Kind;
  readonly at: number;
  readonly span: number;
  readonly fill: number;
}

interface Setting {
  readonly clusterBits: number;
  readonly refcountOrder: number;
  readonly version: 2 | 3;
  /** With subclusters. */
  readonly extended: boolean;
  /** Share of the image that the backing file covers; null = none. */
  readonly backing: number | null;
  readonly seed: number;
}

const CLUSTERS = 40;

const settings: fc.Arbitrary<Setting> = fc
  .record({
    clusterBits: fc.constantFrom(9, 10, 12, 14, 14, 16),
    extended: fc.boolean(),
    refcountOrder: fc.nat({ max: 6 }),
    version: fc.constantFrom(2 as const, 3 as const),
    backing: fc.option(fc.double({ min: 0, max: 1.2, noNaN: true }), { nil: null }),
    seed: fc.nat(),
  })
  .map((setting) => ({
    ...setting,
    refcountOrder: setting.version === 2 ? 4 : setting.refcountOrder,
    extended: setting.extended && setting.version === 3 && setting.clusterBits >= 14,
  }));

const operations: fc.Arbitrary<Operation> = fc.record({
  kind: fc.constantFrom(
    'write', 'write', 'write', 'zero', 'unmap', 'discard', 'compress', 'flush', 'reserve', 'reopen',
  ),
  at: fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }),
  span: fc.double({ min: 0, max: 1, noNaN: true }),
  fill: fc.integer({ min: 1, max: 255 }),
});

class Model {
  readonly size: number;
  readonly clusterSize: number;
  readonly bytes: Uint8Array;
  readonly backing: Uint8Array | null;
  image!: OpenedImage;
  readonly host: MemoryHost;

  constructor(readonly setting: Setting) {
    this.clusterSize = 2 ** setting.clusterBits;
    this.size = CLUSTERS * this.clusterSize - 512;
    this.bytes = new Uint8Array(this.size);
    this.host = new MemoryHost({ seed: setting.seed });
    this.backing = null;
    if (setting.backing !== null) {
      this.backing = new Uint8Array(Math.floor((this.size * setting.backing) / 512) * 512);
      new SeededRandom(setting.seed).fill(this.backing);
      this.bytes.set(this.backing.subarray(0, this.size));
    }
  }

  async open(): Promise<void> {
    const random = new SeededRandom(this.setting.seed);
    const backing =
      this.backing === null ? null : backingNode(this.backing, () => random.chance(0.5));
    this.image = await openOn(this.host, '/image', backing);
  }

  /** A range in bytes, aligned to `unit`; at most a third of the image. */
  range(operation: Operation, unit: number): { offset: number; length: number } {
    const units = Math.ceil(this.size / unit);
    const first = Math.min(units - 1, Math.floor(operation.at * units));
    const count = 1 + Math.floor((operation.span * units) / 3);
    const offset = first * unit;
    return { offset, length: Math.min(this.size, (first + count) * unit) - offset };
  }

  async apply(operation: Operation): Promise<void> {
    const { node } = this.image;
    const unit = operation.fill % 2 === 0 ? 512 : this.clusterSize;
    const { offset, length } = this.range(operation, unit);
    const data = new Uint8Array(length);
    new SeededRandom(operation.fill).fill(data);
    switch (operation.kind) {
      case 'write':
        await node.write(writeRequest(offset, data));
        this.bytes.set(data, offset);
        return;
      case 'zero':
      case 'unmap': {
        const flags = operation.kind === 'unmap' ? RequestFlag.mayUnmap : 0;
        await node.writeZeroes(zeroRequest(offset, length, flags));
        this.bytes.fill(0, offset, offset + length);
        return;
      }
      case 'discard':
        return this.discard(offset, length);
      case 'compress':
        return this.compress(operation);
      case 'flush':
        await node.flush();
        return;
      case 'reserve':
        return this.reserve(operation);
      default:
        await node.close();
        await this.open();
    }
  }

  async discard(offset: number, length: number): Promise<void> {
    await this.image.node.discard(discardRequest(offset, length));
    if (this.setting.version === 2 && this.backing !== null) return;
    const start = Math.ceil(offset / this.clusterSize) * this.clusterSize;
    const reach = offset + length;
    const end =
      reach === this.size ? reach : Math.floor(reach / this.clusterSize) * this.clusterSize;
    if (end > start) this.bytes.fill(0, start, end);
  }

  async compress(operation: Operation): Promise<void> {
    const { offset, length } = this.range(operation, this.clusterSize);
    const data = new Uint8Array(length);
    for (let at = 0; at < length; at += 1) data[at] = (at >> 4) * operation.fill;
    await this.image.node.write(writeRequest(offset, data, RequestFlag.compressed));
    this.bytes.set(data, offset);
  }

  async reserve(operation: Operation): Promise<void> {
    const { offset, length } = this.range(operation, this.clusterSize);
    const reservation = await this.image.node.reserve(offset, length);
    if (!this.setting.extended) expect(reservation).not.toBeNull();
    // Clusters that hold some subclusters of ours are not replaced.
    if (reservation === null) return;
    const outcomes: ('written' | 'zero')[] = [];
    let next = offset;
    for (const piece of reservation.pieces) {
      expect(piece.offset).toBe(next);
      next += piece.length;
      const zero = (piece.offset / this.clusterSize + operation.fill) % 3 === 0;
      const outcome = zero ? 'zero' : 'written';
      outcomes.push(outcome);
      const data = new Uint8Array(piece.length);
      if (outcome === 'written') {
        new SeededRandom(operation.fill + piece.offset).fill(data);
        await piece.file.write(data, piece.hostOffset);
      }
      this.bytes.set(data, piece.offset);
    }
    expect(next).toBe(offset + length);
    await reservation.link(outcomes);
  }
}

async function start(setting: Setting): Promise<Model> {
  const model = new Model(setting);
  await createOn(model.host, '/image', {
    size: model.size,
    version: setting.version === 2 ? 'v2' : 'v3',
    'cluster-size': model.clusterSize,
    'refcount-bits': 2 ** setting.refcountOrder,
    'extended-l2': setting.extended,
  } as never);
  await model.open();
  return model;
}

describe('qcow2 data path', () => {
  it('reads as a plain array after any sequence of requests and leaks nothing', async () => {
    await fc.assert(
      fc.asyncProperty(settings, fc.array(operations, { maxLength: 30 }), async (setting, list) => {
        const model = await start(setting);
        for (const operation of list) {
          await model.apply(operation);
          const seen = await model.image.read(0, model.size);
          expect(Buffer.compare(seen, model.bytes), JSON.stringify(operation)).toBe(0);
        }
        await model.image.node.close();
        const result = await checkOn(model.host, '/image');
        expect(result).toMatchObject({ corruptions: 0, leaks: 0, checkErrors: 0 });
        await model.open();
        expect(Buffer.compare(await model.image.read(0, model.size), model.bytes)).toBe(0);
      }),
      { numRuns: runs(50, 500) },
    );
  });

  it('gives disjoint requests that run side by side each their own result', async () => {
    await fc.assert(
      fc.asyncProperty(settings, fc.array(operations, { maxLength: 40 }), async (setting, list) => {
        const model = await start(setting);
        const length = 512 * 3;
        const most = Math.floor(model.size / length);
        const running = list.slice(0, most).map(async (operation, index) => {
          const from = index * length;
          if (operation.kind === 'flush') return model.image.node.flush();
          if (operation.kind === 'discard' || operation.kind === 'zero') {
            await model.image.node.writeZeroes(zeroRequest(from, length, RequestFlag.mayUnmap));
            model.bytes.fill(0, from, from + length);
            return;
          }
          const data = new Uint8Array(length).fill(operation.fill);
          await model.image.node.write(writeRequest(from, data));
          model.bytes.set(data, from);
        });
        await Promise.all(running);
        expect(Buffer.compare(await model.image.read(0, model.size), model.bytes)).toBe(0);
        await model.image.node.close();
        const result = await checkOn(model.host, '/image');
        expect(result).toMatchObject({ corruptions: 0, leaks: 0, checkErrors: 0 });
      }),
      { numRuns: runs(50, 500) },
    );
  });

  it('shows each sector as one of the overlapping requests left it', async () => {
    await fc.assert(
      fc.asyncProperty(settings, fc.array(operations, { maxLength: 25 }), async (setting, list) => {
        const model = await start({ ...setting, backing: null });
        const sectors = model.size / 512;
        const allowed = Array.from({ length: sectors }, () => new Set([0]));
        await Promise.all(
          list.map((operation, index) => overlap(model, allowed, { operation, index })),
        );
        const seen = await model.image.read(0, model.size);
        allowed.forEach((fills, sector) => {
          const part = seen.subarray(sector * 512, sector * 512 + 512);
          const fill = part[0] ?? -1;
          const whole = Buffer.compare(part, Buffer.alloc(512, fill)) === 0;
          if (!whole || !fills.has(fill)) expect.fail(`sector ${sector} shows ${fill}`);
        });
        await model.image.node.close();
        const result = await checkOn(model.host, '/image');
        expect(result).toMatchObject({ corruptions: 0, leaks: 0, checkErrors: 0 });
      }),
      { numRuns: runs(50, 500) },
    );
  });
});

/** Starts one request of a crowd; every sector it touches may end as it says. */
async function overlap(
  model: Model,
  allowed: readonly Set<number>[],
  request: { readonly operation: Operation; readonly index: number },
): Promise<void> {
  const { node } = model.image;
  const { operation, index } = request;
  const whole = operation.kind === 'compress' || operation.kind === 'reserve';
  const { offset, length } = model.range(operation, whole ? model.clusterSize : 512);
  const erases = ['zero', 'unmap', 'discard'].includes(operation.kind);
  const fill = erases ? 0 : index + 1;
  const writes = operation.kind !== 'flush' && operation.kind !== 'reopen';
  for (let at = offset; writes && at < offset + length; at += 512) allowed[at / 512]?.add(fill);
  const data = new Uint8Array(length).fill(fill);
  switch (operation.kind) {
    case 'write':
      return node.write(writeRequest(offset, data));
    case 'compress':
      return node.write(writeRequest(offset, data, RequestFlag.compressed));
    case 'zero':
      return node.writeZeroes(zeroRequest(offset, length));
    case 'unmap':
      return node.writeZeroes(zeroRequest(offset, length, RequestFlag.mayUnmap));
    case 'discard':
      return node.discard(discardRequest(offset, length));
    case 'reserve': {
      const reservation = await node.reserve(offset, length);
      for (const piece of reservation?.pieces ?? []) {
        await piece.file.write(data.subarray(0, piece.length), piece.hostOffset);
      }
      return reservation?.link(reservation.pieces.map(() => 'written'));
    }
    default:
      return node.flush();
  }
}
