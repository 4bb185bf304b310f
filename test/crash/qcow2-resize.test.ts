// SPDX-License-Identifier: Apache-2.0
// Images made smaller and larger among writes, the power cut at every write: what is left has the
// old size or the new one, checks without an error (leaks allowed), and shows old or new sectors.
// A smaller image keeps everything until it has its new size for good.

import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, describe, expect, it } from 'vitest';
import { Permission, SeededRandom } from '../../src/base/index.js';
import { writeRequest, zeroRequest } from '../../src/block/index.js';
import type { Graph, Node, NodeOptions, TruncateOptions } from '../../src/block/index.js';
import { CrashDisk } from '../../src/host/index.js';
import type { MemoryHost } from '../../src/host/index.js';
import { makeGraph, readAll } from '../helpers/job-stage.js';
import { errorOf, READ_WRITE } from '../helpers/graph.js';
import { peer } from '../helpers/peers.js';
import { checkOn } from '../helpers/qcow2-check.js';
import { createOn } from '../helpers/qcow2-create.js';
import { repeats } from '../helpers/qcow2-node.js';
import { runs } from '../helpers/seeds.js';

const SECTOR = 512;

interface Setting {
  /** From 14 on with subclusters. */
  readonly clusterBits: number;
  readonly refcountOrder: number;
  readonly backing: boolean;
  readonly dataFile?: 'plain' | 'raw' | undefined;
  readonly seed: number;
}

interface Operation {
  readonly kind: 'write' | 'zero' | 'resize';
  readonly at: number;
  readonly span: number;
  readonly preallocation: TruncateOptions['preallocation'];
}

/** One number for each sector: what its bytes are filled with. */
type View = readonly number[];

function bytesOf(view: View): Uint8Array {
  const bytes = new Uint8Array(view.length * SECTOR);
  view.forEach((tag, index) => bytes.fill(tag, index * SECTOR, (index + 1) * SECTOR));
  return bytes;
}

/** −1 for a sector that is not of one kind. */
function viewOf(bytes: Uint8Array): View {
  return Array.from({ length: bytes.length / SECTOR }, (_, index) => {
    const sector = bytes.subarray(index * SECTOR, (index + 1) * SECTOR);
    return repeats(sector, 1) ? (sector[0] ?? -1) : -1;
  });
}

async function resizeTo(
  graph: Graph,
  node: Node,
  target: { readonly sectors: number; readonly mode?: TruncateOptions['preallocation'] },
): Promise<void> {
  const user = await graph.attach(node, 'resize', { taken: Permission.resize, shared: 15 });
  const preallocation = target.mode ?? 'off';
  try {
    await node.truncate(target.sectors * SECTOR, { exact: true, preallocation });
  } finally {
    await user.detach();
  }
}

const COVERED = 90;

class Run {
  readonly disk: CrashDisk;
  readonly #setting: Setting;
  readonly #random: SeededRandom;
  view: View;
  graph!: Graph;
  node!: Node;
  #tag = 0;

  constructor(setting: Setting) {
    this.#setting = setting;
    this.disk = new CrashDisk({ seed: setting.seed });
    this.#random = new SeededRandom(setting.seed);
    const covered = setting.backing ? COVERED : 0;
    this.view = Array.from({ length: 150 }, (_, index) => (index < covered ? 7 : 0));
  }

  async start(): Promise<void> {
    const { clusterBits, refcountOrder, dataFile } = this.#setting;
    this.disk.putFile('/base', new Uint8Array(COVERED * SECTOR).fill(7));
    await createOn(this.disk, '/image', {
      size: this.view.length * SECTOR,
      'cluster-size': 2 ** clusterBits,
      'extended-l2': clusterBits >= 14,
      'refcount-bits': 2 ** refcountOrder,
      ...(dataFile !== undefined && { 'data-file': '/data' }),
      'data-file-raw': dataFile === 'raw',
    } as never);
    [this.graph, this.node] = await this.open(this.disk, false);
  }

  async open(host: MemoryHost, readOnly: boolean): Promise<[Graph, Node]> {
    const graph = makeGraph(host);
    const base = { driver: 'raw', file: { driver: 'file', filename: '/base' } };
    const node = await graph.open({
      driver: 'qcow2',
      'read-only': readOnly,
      discard: 'unmap',
      file: { driver: 'file', filename: '/image' },
      backing: this.#setting.backing ? base : null,
    } as NodeOptions);
    return [graph, node];
  }

  /** The operation and a flush, the power cut at each write of both. */
  async step(operation: Operation): Promise<void> {
    const before = this.view;
    const after = this.#after(operation);
    const survivors: MemoryHost[] = [];
    this.disk.onWrite = () => {
      survivors.push(this.disk.durable(), this.disk.afterPowerLoss(this.#random));
    };
    await this.#perform(operation, after);
    await this.node.flush();
    this.disk.onWrite = null;
    this.view = after;
    for (const [index, survivor] of survivors.entries()) {
      await this.judge(survivor, [before, after], `${operation.kind}, survivor ${index}`);
    }
  }

  async judge(survivor: MemoryHost, views: readonly View[], where: string): Promise<void> {
    const checked = await checkOn(survivor, '/image');
    const faults = { corruptions: 0, checkErrors: 0 };
    expect(checked, `${where}: ${checked.messages.join('; ')}`).toMatchObject(faults);
    const [graph, node] = await this.open(survivor, true);
    const found = viewOf(await readAll(node));
    await graph.closeAll();
    const sizes = views.map((view) => view.length);
    expect(sizes, where).toContain(found.length);
    const possible = views.filter((view) => view.length >= found.length);
    found.forEach((tag, sector) => {
      const allowed = possible.map((view) => view[sector]);
      if (allowed.includes(tag)) return;
      const choices = allowed.join(' or ');
      expect.fail(`${where}: sector ${sector} of ${found.length} shows ${tag}, not ${choices}`);
    });
    if (this.#random.chance(0.3)) await this.#grow(survivor, found, where);
  }

  /**
   * Nothing comes back that was cut off, except what a raw data file still holds: the power may
   * fail before it is cut, and what lies in it is what clusters without subclusters show.
   */
  async #grow(survivor: MemoryHost, view: View, where: string): Promise<void> {
    const { clusterBits, dataFile } = this.#setting;
    const isShown = dataFile === 'raw' && clusterBits < 14;
    const beside = isShown ? viewOf(survivor.fileContents('/data')) : [];
    const [graph, node] = await this.open(survivor, false);
    await resizeTo(graph, node, { sectors: 700 });
    const length = 700 - view.length;
    const behind = Array.from({ length }, (_, index) => beside[view.length + index] ?? 0);
    expect(viewOf(await readAll(node)), `${where}, grown`).toEqual([...view, ...behind]);
    if (dataFile === 'raw') {
      const stored = viewOf(survivor.fileContents('/data'));
      expect(stored.slice(view.length), where).toEqual(behind);
    }
    await graph.closeAll();
    expect((await checkOn(survivor, '/image')).corruptions, `${where}, grown`).toBe(0);
  }

  async end(): Promise<void> {
    expect(viewOf(await readAll(this.node))).toEqual(this.view);
    await this.graph.closeAll();
    if (this.#setting.dataFile === 'raw') {
      expect(viewOf(this.disk.fileContents('/data'))).toEqual(this.view);
    }
    expect(await checkOn(this.disk, '/image')).toMatchObject({ corruptions: 0, leaks: 0 });
  }

  #after({ kind, at, span }: Operation): View {
    const { length } = this.view;
    if (kind === 'resize') {
      const size = Math.floor(at * at * 700);
      return Array.from({ length: size }, (_, index) => this.view[index] ?? 0);
    }
    this.#tag = (this.#tag % 250) + 1;
    const first = Math.floor(at * length);
    const end = Math.min(length, first + 1 + Math.floor((span * length) / 2));
    const tag = kind === 'zero' ? 0 : this.#tag;
    return this.view.map((old, index) => (index >= first && index < end ? tag : old));
  }

  async #perform({ kind, at, span, preallocation }: Operation, after: View): Promise<void> {
    const { length } = this.view;
    if (kind === 'resize') {
      const mode = after.length > length ? preallocation : 'off';
      await resizeTo(this.graph, this.node, { sectors: after.length, mode });
      return;
    }
    const first = Math.floor(at * length);
    const end = Math.min(length, first + 1 + Math.floor((span * length) / 2));
    if (first >= end) return;
    const user = await this.graph.attach(this.node, 'guest', READ_WRITE);
    const offset = first * SECTOR;
    const data = bytesOf(after.slice(first, end));
    if (kind === 'write') await this.node.write(writeRequest(offset, data));
    else await this.node.writeZeroes(zeroRequest(offset, data.length, 0));
    await user.detach();
  }
}

const settings: fc.Arbitrary<Setting> = fc.record({
  clusterBits: fc.constantFrom(9, 10, 14),
  refcountOrder: fc.constantFrom(0, 4, 6),
  backing: fc.boolean(),
  seed: fc.nat(),
});

const withDataFile: fc.Arbitrary<Setting> = fc
  .tuple(settings, fc.constantFrom('plain' as const, 'raw' as const))
  .map(([setting, dataFile]) => ({
    ...setting,
    dataFile,
    backing: setting.backing && dataFile === 'plain',
  }));

const operations: fc.Arbitrary<Operation> = fc.record({
  kind: fc.constantFrom('write' as const, 'zero' as const, 'resize' as const, 'resize' as const),
  at: fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }),
  span: fc.double({ min: 0, max: 1, noNaN: true }),
  preallocation: fc.constantFrom<TruncateOptions['preallocation'][]>(
    'off', 'off', 'metadata', 'falloc', 'full',
  ),
});

describe('a qcow2 image of changing size', () => {
  const folder = mkdtempSync(join(tmpdir(), 'qcow2-resize-'));
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  it('is of the old size or the new one after a power cut, without errors', async () => {
    await fc.assert(
      fc.asyncProperty(
        settings,
        fc.array(operations, { minLength: 2, maxLength: 10 }),
        async (setting, work) => {
          const run = new Run(setting);
          await run.start();
          for (const operation of work) await run.step(operation);
          await run.end();
        },
      ),
      { numRuns: runs(8, 50) },
    );
  }, 240_000);

  it('changes with its data file, a raw one byte by byte', async () => {
    await fc.assert(
      fc.asyncProperty(
        withDataFile,
        fc.array(operations, { minLength: 2, maxLength: 10 }),
        async (setting, work) => {
          const run = new Run(setting);
          await run.start();
          for (const operation of work) await run.step(operation);
          await run.end();
        },
      ),
      { numRuns: runs(4, 30) },
    );
  }, 240_000);

  it('gives the space back to the file, refcount blocks and all', async () => {
    const run = new Run({ clusterBits: 9, refcountOrder: 6, backing: false, seed: 3 });
    await run.start();
    const small = run.disk.fileContents('/image').length;
    await run.step({ kind: 'resize', at: 0.99, span: 0, preallocation: 'full' });
    expect(run.disk.fileContents('/image').length).toBeGreaterThan(250_000);
    await run.step({ kind: 'resize', at: 0, span: 0, preallocation: 'off' });
    expect(run.disk.fileContents('/image').length).toBeLessThan(2 * small);
    await run.end();
  });

  it('refuses what cannot be, unchanged', async () => {
    const run = new Run({ clusterBits: 9, refcountOrder: 4, backing: true, seed: 4 });
    await run.start();
    const refuse = (size: number, preallocation: TruncateOptions['preallocation']) =>
      errorOf(() => run.node.truncate(size, { exact: true, preallocation }));
    const before = run.disk.fileContents('/image');
    expect((await refuse(512, 'full')).message).toBe(
      "Preallocation can't be used for shrinking an image",
    );
    expect((await refuse(513, 'off')).message).toBe('The new size must be a multiple of 512');
    expect(run.disk.fileContents('/image')).toEqual(before);
    await run.end();
  });

  it('is as it was when its header cannot be written or synced', async () => {
    for (const operation of ['write', 'sync'] as const) {
      for (let nth = 1; ; nth += 1) {
        const run = new Run({ clusterBits: 9, refcountOrder: 4, backing: true, seed: nth });
        await run.start();
        await run.step({ kind: 'write', at: 0.2, span: 0.9, preallocation: 'off' });
        const { faults } = run.disk;
        faults.add({ operation, nth, errno: 'EIO', path: '/image' });
        const failure = await resizeTo(run.graph, run.node, { sectors: 40 }).catch(
          (error: unknown) => error,
        );
        faults.clear();
        expect(run.node.length / SECTOR).toBe(failure === undefined ? 40 : run.view.length);
        await run.graph.closeAll().catch(() => undefined);
        const views = [run.view, run.view.slice(0, 40)];
        const possible = failure === undefined ? views.slice(1) : views;
        await run.judge(run.disk, possible, `${operation} ${nth}`);
        if (failure === undefined) break;
      }
    }
  });

  const qemuImg = peer('qemu-img');
  it.skipIf(qemuImg === null)('is found free of errors by the real check', async () => {
    const random = new SeededRandom(5);
    const path = join(folder, 'image');
    writeFileSync(join(folder, 'base'), '');
    const run = new Run({ clusterBits: 9, refcountOrder: 4, backing: false, seed: 8 });
    await run.start();
    const modes = ['off', 'metadata', 'falloc', 'full'] as const;
    for (let round = 0; round < 12; round += 1) {
      const [at, span] = [random.below(100) / 100, random.below(100) / 100];
      const preallocation = modes[round % modes.length] ?? 'off';
      await run.step({ kind: round % 3 === 0 ? 'write' : 'resize', at, span, preallocation });
      writeFileSync(path, run.disk.fileContents('/image'));
      const { status, stdout } = spawnSync(qemuImg ?? '', ['check', '-f', 'qcow2', path]);
      expect([0, 3], stdout.toString()).toContain(status);
      const raw = join(folder, 'raw');
      spawnSync(qemuImg ?? '', ['convert', '-f', 'qcow2', '-O', 'raw', path, raw]);
      expect(viewOf(readFileSync(raw))).toEqual(run.view);
    }
    await run.end();
  });
});
