// SPDX-License-Identifier: Apache-2.0
// The power is cut at every single write of a run, with several random subsets of what was not
// synced surviving, torn at sectors. Whatever is left must check without an error (leaks allowed),
// hold all flushed data, and show every unflushed sector as it was before or after.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { spawnSync } from 'node:child_process';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, describe, expect, it } from 'vitest';
import { SeededRandom } from '../../src/base/index.js';
import {
  discardRequest,
  RequestFlag,
  writeRequest,
  zeroRequest,
} from '../../src/block/index.js';
import { CrashDisk } from '../../src/host/index.js';
import type { MemoryHost } from '../../src/host/index.js';
import { peer } from '../helpers/peers.js';
import { checkOn } from '../helpers/qcow2-check.js';
import { createOn } from '../helpers/qcow2-create.js';
import { backingNode, openOn, repeats } from '../helpers/qcow2-node.js';
import type { OpenedImage } from '../helpers/qcow2-node.js';
import { forEachSeed, runs } from '../helpers/seeds.js';

const SECTOR = 512;
const SUBSETS = 3;

interface Setting {
  readonly clusterBits: number;
  readonly refcountOrder: number;
  readonly version: 2 | 3;
  /** With subclusters, of one sector or two. */
  readonly extended?: boolean;
  /** The dirty bit stands while refcounts change. */
  readonly lazy?: boolean;
  readonly backing: boolean;
  readonly dataFile?: 'plain' | 'raw' | undefined;
  readonly sectors: number;
  readonly seed: number;
}

type Kind = 'write' | 'zero' | 'unmap' | 'discard' | 'compress' | 'flush' | 'reserve' | 'burst';

interface Operation {
  readonly kind: Kind;
  readonly at: number;
  readonly span: number;
}

interface Version {
  readonly write: number;
  readonly tag: number;
}

interface Cut {
  readonly survivor: MemoryHost;
  /** Tags that each sector may show. */
  readonly allowed: readonly ReadonlySet<number>[];
  readonly index: number;
}

/** A run of tagged writes; a sector's tag fills it, so any sector tells which write it is from. */
class Run {
  readonly disk: CrashDisk;
  readonly cuts: Cut[] = [];
  readonly clusterSize: number;
  readonly size: number;
  image!: OpenedImage;
  #tag = 1000;
  /** What each sector may show, oldest first. */
  #allowed: Version[][];
  /** Number of the last finished write of each sector. */
  readonly #settled: number[];
  #writes = 0;
  readonly #random: SeededRandom;
  readonly #backing: Uint8Array | null;

  constructor(readonly setting: Setting) {
    this.clusterSize = 2 ** setting.clusterBits;
    this.size = setting.sectors * SECTOR;
    this.disk = new CrashDisk({ seed: setting.seed });
    this.#random = new SeededRandom(setting.seed);
    const covered = setting.backing ? Math.floor(setting.sectors * 0.7) : 0;
    const first = Array.from({ length: setting.sectors }, (_, sector) =>
      sector < covered ? sector + 1 : 0,
    );
    this.#settled = first.map(() => 0);
    this.#allowed = first.map((tag) => [{ write: 0, tag }]);
    this.#backing = setting.backing ? filled(first.slice(0, covered)) : null;
  }

  async start(): Promise<void> {
    const { version, refcountOrder, extended, lazy, dataFile } = this.setting;
    await createOn(this.disk, '/image', {
      size: this.size,
      version: version === 2 ? 'v2' : 'v3',
      'cluster-size': this.clusterSize,
      'refcount-bits': 2 ** refcountOrder,
      'extended-l2': extended === true,
      'lazy-refcounts': lazy === true,
      ...(dataFile !== undefined && { 'data-file': '/data' }),
      'data-file-raw': dataFile === 'raw',
    } as never);
    this.image = await this.reopen(this.disk);
    this.disk.onWrite = (index) => this.#cut(index);
  }

  reopen(host: MemoryHost, readOnly = false): Promise<OpenedImage> {
    const backing = this.#backing === null ? null : backingNode(this.#backing);
    return openOn(host, '/image', backing, { readOnly });
  }

  async apply(operation: Operation): Promise<void> {
    const { node } = this.image;
    if (operation.kind === 'flush') return this.#flush();
    if (operation.kind === 'burst') return this.#burst(operation);
    const whole = operation.kind === 'compress' || operation.kind === 'reserve';
    const { first, count } = this.#range(operation, whole || operation.kind === 'discard');
    const offset = first * SECTOR;
    const length = count * SECTOR;
    switch (operation.kind) {
      case 'write':
        return this.#change(first, count, (data) => node.write(writeRequest(offset, data)));
      case 'compress':
        if (this.setting.dataFile !== undefined) return;
        return this.#change(first, count, (data) =>
          node.write(writeRequest(offset, data, RequestFlag.compressed)),
        );
      case 'reserve':
        return this.#change(first, count, async (data) => {
          const reservation = await node.reserve(offset, length);
          if (reservation === null) return node.write(writeRequest(offset, data));
          for (const piece of reservation.pieces) {
            const at = piece.offset - offset;
            await piece.file.write(data.subarray(at, at + piece.length), piece.hostOffset);
          }
          return reservation.link(reservation.pieces.map(() => 'written'));
        });
      case 'discard':
        if (this.setting.version === 2 && this.setting.backing) return;
        return this.#zero(first, count, () => node.discard(discardRequest(offset, length)));
      default: {
        const flags = operation.kind === 'unmap' ? RequestFlag.mayUnmap : 0;
        const request = zeroRequest(offset, length, flags);
        return this.#zero(first, count, () => node.writeZeroes(request));
      }
    }
  }

  async verify(judge: (survivor: MemoryHost, index: number) => void): Promise<void> {
    for (const { survivor, allowed, index } of this.cuts.splice(0)) {
      this.#requireRaw(survivor, allowed, index);
      const isDirty = isMarkedDirty(survivor);
      if (isDirty) expect(this.setting.lazy).toBe(true);
      else await expectSound(survivor, index);
      judge(survivor, index);
      if (isDirty) await this.#requireView(await this.reopen(survivor, true), allowed, index);
      const reopened = await this.reopen(survivor);
      await this.#requireView(reopened, allowed, index);
      if (!isDirty) continue;
      await expectSound(survivor, index);
      await reopened.node.close();
      expect(isMarkedDirty(survivor)).toBe(false);
    }
  }

  async #requireView(
    image: OpenedImage,
    allowed: readonly ReadonlySet<number>[],
    index: number,
  ): Promise<void> {
    const tags = tagsOf(await image.read(0, this.size));
    tags.forEach((tag, sector) => {
      if (allowed[sector]?.has(tag) === true) return;
      const choices = [...(allowed[sector] ?? [])].join(', ');
      expect.fail(`cut ${index}: sector ${sector} shows ${tag}, allowed are ${choices}`);
    });
  }

  /** A raw data file holds by itself what the image may show. */
  #requireRaw(
    host: MemoryHost,
    allowed: readonly ReadonlySet<number>[],
    index: number,
  ): void {
    if (this.setting.dataFile !== 'raw') return;
    const bytes = host.fileContents('/data');
    expect(bytes.length).toBe(this.size);
    const wrong = tagsOf(bytes.slice()).findIndex((tag, at) => allowed[at]?.has(tag) !== true);
    expect(wrong, `cut ${index}: sector of the raw data file`).toBe(-1);
  }

  #cut(index: number): void {
    for (let subset = 0; subset < SUBSETS; subset += 1) {
      this.cuts.push({
        survivor: this.disk.afterPowerLoss(this.#random),
        allowed: this.#allowed.map((versions) => new Set(versions.map(({ tag }) => tag))),
        index,
      });
    }
  }

  #range(operation: Operation, whole: boolean): { first: number; count: number } {
    const unit = whole ? this.clusterSize / SECTOR : 1;
    const units = Math.ceil(this.setting.sectors / unit);
    const first = Math.min(units - 1, Math.floor(operation.at * units));
    const count = 1 + Math.floor(operation.span * (units / 4));
    const end = Math.min(this.setting.sectors, (first + count) * unit);
    return { first: first * unit, count: end - first * unit };
  }

  async #change(
    first: number,
    count: number,
    write: (data: Uint8Array) => unknown,
  ): Promise<void> {
    const tags = Array.from({ length: count }, () => (this.#tag += 1));
    return this.#issue(first, tags, () => write(filled(tags)));
  }

  async #zero(first: number, count: number, erase: () => unknown): Promise<void> {
    return this.#issue(first, Array.from({ length: count }, () => 0), erase);
  }

  async #issue(first: number, tags: readonly number[], act: () => unknown): Promise<void> {
    const write = (this.#writes += 1);
    tags.forEach((tag, index) => this.#allowed[first + index]?.push({ write, tag }));
    await act();
    this.#settled.fill(write, first, first + tags.length);
  }

  async #flush(): Promise<void> {
    const durable = [...this.#settled];
    await this.image.node.flush();
    // What was finished before the flush began is not undone by any cut from here on.
    this.#allowed = this.#allowed.map((versions, sector) =>
      versions.filter(({ write }) => write >= (durable[sector] ?? 0)),
    );
  }

  /** A flush that comes while another is halfway. */
  async #laterFlush(): Promise<void> {
    for (let turn = this.#random.below(30); turn > 0; turn -= 1) await Promise.resolve();
    return this.#flush();
  }

  /** Writes to separate parts and flushes in the middle, all at once. */
  async #burst(operation: Operation): Promise<void> {
    const share = Math.floor(this.setting.sectors / 6);
    const length = Math.max(1, Math.floor(operation.span * share));
    const write = (part: number): Promise<void> =>
      this.#change(part * share, length, (data) =>
        this.image.node.write(writeRequest(part * share * SECTOR, data)),
      );
    const work = [write(0), write(1), write(2)];
    work.push(this.#flush(), write(3), write(4), this.#flush(), write(5), this.#laterFlush());
    await Promise.all(work);
  }
}

/** The lowest of the incompatible feature bits. */
function isMarkedDirty(host: MemoryHost): boolean {
  return ((host.fileContents('/image')[79] ?? 0) & 1) !== 0;
}

async function expectSound(host: MemoryHost, index: number): Promise<void> {
  const result = await checkOn(host, '/image');
  const found = { corruptions: result.corruptions, checkErrors: result.checkErrors };
  const sound = { corruptions: 0, checkErrors: 0 };
  expect(found, `cut ${index}: ${result.messages.join('; ')}`).toEqual(sound);
}

function filled(tags: readonly number[]): Uint8Array {
  const data = new Uint32Array((tags.length * SECTOR) / 4);
  tags.forEach((tag, index) => data.fill(tag, (index * SECTOR) / 4, ((index + 1) * SECTOR) / 4));
  return new Uint8Array(data.buffer);
}

/** −1 for a sector that is not one tag throughout. */
function tagsOf(bytes: Uint8Array): number[] {
  const words = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
  return Array.from({ length: bytes.length / SECTOR }, (_, index) => {
    const sector = bytes.subarray(index * SECTOR, (index + 1) * SECTOR);
    return repeats(sector, 4) ? (words[(index * SECTOR) / 4] ?? -1) : -1;
  });
}

const settings: fc.Arbitrary<Setting> = fc
  .record({
    clusterBits: fc.constantFrom(9, 10, 12, 14, 15),
    refcountOrder: fc.nat({ max: 6 }),
    version: fc.constantFrom(2 as const, 3 as const),
    lazy: fc.boolean(),
    backing: fc.boolean(),
    sectors: fc.integer({ min: 30, max: 250 }),
    seed: fc.nat(),
  })
  .map((setting) => ({
    ...setting,
    refcountOrder: setting.version === 2 ? 4 : setting.refcountOrder,
    lazy: setting.lazy && setting.version === 3,
    extended: setting.version === 3 && setting.clusterBits >= 14,
  }));

const operations: fc.Arbitrary<Operation> = fc.record({
  kind: fc.constantFrom<Kind[]>(
    'write', 'write', 'zero', 'unmap', 'discard', 'compress', 'flush', 'flush', 'reserve', 'burst',
  ),
  at: fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }),
  span: fc.double({ min: 0, max: 1, noNaN: true }),
});

const withDataFile: fc.Arbitrary<Setting> = fc
  .tuple(settings, fc.constantFrom('plain' as const, 'raw' as const))
  .map(([setting, dataFile]) => ({
    ...setting,
    version: 3,
    dataFile,
    backing: setting.backing && dataFile === 'plain',
  }));

describe('qcow2 after a power cut at any write', () => {
  const folder = mkdtempSync(join(tmpdir(), 'qcow2-cut-'));
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  it('has no errors, all flushed data, and old or new unflushed sectors', async () => {
    const list = fc.array(operations, { minLength: 3, maxLength: 14 });
    await fc.assert(
      fc.asyncProperty(settings, list, async (setting, work) => {
        const run = new Run(setting);
        await run.start();
        for (const operation of work) {
          await run.apply(operation);
          await run.verify(() => undefined);
        }
        await run.image.node.close();
        await run.verify(() => undefined);
        expect(await checkOn(run.disk, '/image')).toMatchObject({ corruptions: 0, leaks: 0 });
      }),
      { numRuns: runs(8, 100) },
    );
  }, 120_000);

  it('is whole with its data in a file of its own', async () => {
    const list = fc.array(operations, { minLength: 3, maxLength: 14 });
    await fc.assert(
      fc.asyncProperty(withDataFile, list, async (setting, work) => {
        const run = new Run(setting);
        await run.start();
        for (const operation of work) {
          await run.apply(operation);
          await run.verify(() => undefined);
        }
        await run.image.node.close();
        await run.verify(() => undefined);
        expect(await checkOn(run.disk, '/image')).toMatchObject({ corruptions: 0, leaks: 0 });
        if (setting.dataFile !== 'raw') return;
        const seen = await (await run.reopen(run.disk)).read(0, run.size);
        expect(Buffer.compare(run.disk.fileContents('/data'), seen)).toBe(0);
      }),
      { numRuns: runs(6, 100) },
    );
  }, 120_000);

  it('adds refcount blocks only after their contents are on disk', async () => {
    // 512-byte clusters and 64-bit refcounts: a block counts 64 clusters.
    const sectors = 400;
    await forEachSeed(runs(1, 3), async (seed) => {
      const run = new Run({
        clusterBits: 9, refcountOrder: 6, version: 3, backing: false, sectors, seed,
      });
      await run.start();
      for (let at = 0; at < 0.9; at += 0.1) {
        await run.apply({ kind: 'write', at, span: 0.4 });
        await run.apply({ kind: 'flush', at: 0, span: 0 });
        await run.verify(() => undefined);
      }
    });
  });

  it('grows the refcount table without a moment of danger', async () => {
    // Such a table of one cluster reaches 2 MiB of file; it is crossed with every write cut.
    const run = new Run({
      clusterBits: 9, refcountOrder: 6, version: 3, backing: false, sectors: 6000, seed: 7,
    });
    await run.start();
    const { onWrite } = run.disk;
    run.disk.onWrite = null;
    for (const at of [0, 0.25]) await run.apply({ kind: 'write', at, span: 1 });
    await run.apply({ kind: 'flush', at: 0, span: 0 });
    const header = (): Uint8Array => run.disk.fileContents('/image').slice(48, 60);
    const before = header();
    run.disk.onWrite = onWrite;
    for (let at = 0.51; at < 0.99 && Buffer.compare(header(), before) === 0; at += 0.01) {
      await run.apply({ kind: 'write', at, span: 0.03 });
      await run.verify(() => undefined);
    }
    expect(Buffer.compare(header(), before)).not.toBe(0);
    await run.apply({ kind: 'flush', at: 0, span: 0 });
    await run.verify(() => undefined);
    await run.image.node.close();
    expect(await checkOn(run.disk, '/image')).toMatchObject({ corruptions: 0, leaks: 0 });
  });

  it('moves the L1 table of a growing image without a moment of danger', async () => {
    await forEachSeed(runs(2, 4), async (seed) => {
      const run = new Run({
        clusterBits: 9,
        refcountOrder: seed,
        version: 3,
        backing: seed % 2 === 0,
        sectors: 200,
        seed,
      });
      await run.start();
      for (const factor of [20, 100]) {
        await run.apply({ kind: 'write', at: 0.2, span: 0.5 });
        const size = run.size * factor;
        const growing = run.image.node.truncate(size, { exact: true, preallocation: 'off' });
        await Promise.all([growing, run.apply({ kind: 'burst', at: 0, span: 0.4 })]);
        expect(run.image.node.length).toBe(size);
        await run.verify(() => undefined);
      }
      await run.image.node.close();
      await run.verify(() => undefined);
      expect(await checkOn(run.disk, '/image')).toMatchObject({ corruptions: 0, leaks: 0 });
    });
  });

  it('moves the L1 table without losing flushed data that is written to again', async () => {
    // 512-byte clusters: an L2 table covers 32 KiB, all entries are in one L1 sector.
    const step = 32 * 1024;
    for (let turns = 0; turns < 60; turns += runs(6, 1)) {
      const disk = new CrashDisk({ seed: turns, laterChance: 0.8 });
      await createOn(disk, '/image', { size: 8 * step, 'cluster-size': 512 } as never);
      const { node } = await openOn(disk, '/image');
      const data = new Uint8Array(SECTOR).fill(1);
      await node.write(writeRequest(0, data));
      await node.flush();
      const survivors: MemoryHost[] = [];
      disk.onWrite = () => void survivors.push(disk.durable());
      const growing = node.truncate(400 * step, { exact: true, preallocation: 'off' });
      for (let turn = 0; turn < turns; turn += 1) await Promise.resolve();
      const writes = [SECTOR, step, 2 * step].map((at) => node.write(writeRequest(at, data)));
      await Promise.all([growing, ...writes]);
      for (const [index, survivor] of survivors.entries()) {
        const image = await openOn(survivor, '/image');
        const where = `after ${turns} turns, write ${index}`;
        expect(await image.read(0, SECTOR), where).toEqual(data);
      }
    }
  });

  it('keeps what a flush promised that came while another was halfway', async () => {
    for (let turns = 0; turns < 40; turns += runs(2, 1)) {
      const disk = new CrashDisk({ seed: turns, laterChance: 0.8 });
      await createOn(disk, '/image', { size: 65_536 });
      const { node } = await openOn(disk, '/image');
      const data = new Uint8Array(SECTOR).fill(1);
      await node.write(writeRequest(0, data));
      const first = Promise.resolve(node.flush());
      for (let turn = 0; turn < turns; turn += 1) await Promise.resolve();
      await node.flush();
      const survivor = await openOn(disk.durable(), '/image');
      expect(await survivor.read(0, SECTOR), `after ${turns} turns`).toEqual(data);
      await first;
    }
  });

  const qemuImg = peer('qemu-img');
  it.skipIf(qemuImg === null)('is found free of errors by the real check', async () => {
    const random = new SeededRandom(11);
    const path = join(folder, 'cut.qcow2');
    await forEachSeed([1, 2, 3], async (seed) => {
      const run = new Run({
        clusterBits: 9 + seed,
        refcountOrder: 1 + seed,
        version: 3,
        backing: seed === 2,
        lazy: seed === 3,
        sectors: 128,
        seed,
      });
      await run.start();
      for (let step = 0; step < 10; step += 1) {
        const kinds: Kind[] = ['write', 'compress', 'unmap', 'flush', 'burst', 'reserve'];
        const kind = kinds[random.below(kinds.length)] ?? 'write';
        await run.apply({ kind, at: random.below(100) / 100, span: random.below(100) / 100 });
        await run.verify((survivor) => {
          if (!random.chance(0.05)) return;
          writeFileSync(path, survivor.fileContents('/image'));
          const repair = isMarkedDirty(survivor) ? ['-r', 'all'] : [];
          const args = ['check', ...repair, '-f', 'qcow2', path];
          const { status, stdout } = spawnSync(qemuImg ?? '', args);
          // 0 clean, 3 leaks only.
          expect([0, 3], stdout.toString()).toContain(status);
        });
      }
    });
  }, 120_000);
});
