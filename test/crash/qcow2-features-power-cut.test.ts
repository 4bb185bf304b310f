// SPDX-License-Identifier: Apache-2.0
// Features of qcow2 together, the power cut at every write of guest requests and of command lines
// of img, several subsets of what was not synced surviving. What is left checks with leaks at most
// (lazy refcounts: is marked dirty, and whole after it was opened for writing), shows flushed data
// and old or new sectors, every snapshot as it was, and no bitmap that is trusted and says too
// little.
import { describe, expect, it } from 'vitest';

import { SeededRandom } from '../../src/base/index.js';
import {
  discardRequest,
  RequestFlag,
  writeRequest,
  zeroRequest,
} from '../../src/block/index.js';
import type { Node } from '../../src/block/index.js';
import type { MemoryHost } from '../../src/host/index.js';
import { FEATURES, FEATURE_SIZE as SIZE, VERB_CASES } from '../helpers/feature-cases.js';
import {
  expectTrusted,
  FeatureStage,
  isMarkedDirty,
  shownView,
  snapshotViews,
  viewAfter,
} from '../helpers/feature-stage.js';
import type { Features } from '../helpers/feature-stage.js';
import { READ_WRITE } from '../helpers/graph.js';
import { firstDifference } from '../helpers/job-stage.js';
import { forEachSeed, someOf } from '../helpers/seeds.js';

const SECTOR = 512;
const isCampaign = process.env['BLOCKWRIGHT_CAMPAIGN'] !== undefined;
const SEEDS = isCampaign ? 6 : 1;

/** Of each sector the bytes it may be full of. */
type Choices = readonly (readonly number[])[];

/** Guest requests on `/top`: what each sector may show after a power cut. */
class Guest {
  readonly #random: SeededRandom;
  /** What each sector may show by its first byte, oldest first. */
  #allowed: number[][];
  #tag = 10;

  constructor(
    readonly stage: FeatureStage,
    readonly node: Node,
    view: Uint8Array,
  ) {
    this.#random = new SeededRandom(stage.seed);
    const sectors = Array.from({ length: view.length / SECTOR }, (_, at) => view[at * SECTOR] ?? 0);
    this.#allowed = sectors.map((tag) => [tag]);
  }

  async step(): Promise<void> {
    const { dataFile, encrypted, options } = this.stage.features;
    const kinds = ['write', 'write', 'write', 'zero', 'unmap', 'discard', 'flush', 'compress'];
    const compresses = dataFile !== true && encrypted !== true;
    const kind = kinds[this.#random.below(compresses ? 8 : 7)] ?? 'flush';
    if (kind === 'flush') {
      await this.node.flush();
      this.#allowed = this.#allowed.map((tags) => tags.slice(-1));
      return;
    }
    // Discards change nothing in version 2 over a backing file, as a hint may.
    if (kind === 'discard' && options.includes('0.10')) return;
    const isWhole = kind === 'compress' || kind === 'discard';
    const { offset, length } = this.#span(isWhole ? this.stage.clusterSize : SECTOR);
    const isData = kind === 'write' || kind === 'compress';
    const tag = isData ? (this.#tag = 10 + ((this.#tag - 9) % 240)) : 0;
    for (let at = offset; at < offset + length; at += SECTOR) {
      this.#allowed[at / SECTOR]?.push(tag);
    }
    if (isData) {
      const flags = kind === 'compress' ? RequestFlag.compressed : 0;
      await this.node.write(writeRequest(offset, new Uint8Array(length).fill(tag), flags));
    } else if (kind === 'discard') await this.node.discard(discardRequest(offset, length));
    else {
      const flags = kind === 'unmap' ? RequestFlag.mayUnmap : 0;
      await this.node.writeZeroes(zeroRequest(offset, length, flags));
    }
  }

  /** What may be shown now; later steps do not change what was given. */
  choices(): Choices {
    return this.#allowed.map((tags) => [...tags]);
  }

  #span(unit: number): { offset: number; length: number } {
    const units = Math.ceil(SIZE / unit);
    const first = this.#random.below(units);
    const most = Math.max(1, Math.floor(units / 5));
    const end = Math.min(SIZE, (first + 1 + this.#random.below(most)) * unit);
    return { offset: first * unit, length: end - first * unit };
  }
}

function expectSectors(view: Uint8Array, choices: Choices, where: string): void {
  choices.forEach((tags, sector) => {
    const bytes = view.subarray(sector * SECTOR, (sector + 1) * SECTOR);
    const [tag = -1] = bytes;
    const isWhole = bytes.every((byte) => byte === tag);
    if (isWhole && tags.includes(tag)) return;
    expect.fail(`${where}: sector ${sector} shows ${tag}, allowed are ${tags.join(', ')}`);
  });
}

const PIECES = 'L2 tables in pieces and a snapshot';
const ENCRYPTED = 'AES, extended L2, a snapshot and a bitmap';
const LUKS_INSIDE = Object.keys(FEATURES).filter((name) => name.startsWith('LUKS'));
const sampled = new Set([...someOf(Object.keys(FEATURES), 2), PIECES, ENCRYPTED, ...LUKS_INSIDE]);

describe('guest requests, the power cut at every write', () => {
  it.each([...sampled])('on an image with %s', async (name) => {
    const features = FEATURES[name] as Features;
    await forEachSeed(SEEDS, async (seed) => {
      const stage = new FeatureStage(features, seed);
      await stage.makeChain(SIZE);
      const snapshots = await snapshotViews(stage.disk, '/top');
      const before = await viewAfter(stage.disk, '/top');
      const graph = stage.graphOn(stage.disk);
      const node = await stage.openOn(graph, '/top', false);
      const user = await graph.attach(node, 'guest', READ_WRITE);
      const guest = new Guest(stage, node, before);
      for (let step = 0; step < (isCampaign ? 16 : 8); step += 1) {
        const cuts: { host: MemoryHost; choices: Choices }[] = [];
        stage.disk.onWrite = () => {
          const host = stage.disk.afterPowerLoss(stage.random);
          cuts.push({ host, choices: guest.choices() });
        };
        await guest.step();
        for (const [index, { host, choices }] of cuts.entries()) {
          const where = `step ${step}, cut ${index}`;
          const view = await viewAfter(host, '/top', { lazy: features.lazy === true });
          expectSectors(view, choices, where);
          expect(await snapshotViews(host, '/top'), where).toEqual(snapshots);
          await expectTrusted(host, '/top', { before, view });
        }
      }
      stage.disk.onWrite = null;
      await user.detach();
      await graph.closeAll();
      expect(isMarkedDirty(stage.disk, '/top')).toBe(false);
      expectSectors(await viewAfter(stage.disk, '/top'), guest.choices(), 'closed');
      expect(await snapshotViews(stage.disk, '/top')).toEqual(snapshots);
    });
  });
});

describe('command lines of img, the power cut at every write', () => {
  const sample = VERB_CASES.filter((_, index) => isCampaign || index % 9 === 3);

  it.each(sample)('$line on an image with $name', async ({ line, features, verb, seed }) => {
    const lazy = features.lazy === true || line.includes('lazy');
    await forEachSeed(isCampaign ? [seed, seed + 50] : [seed], async (each) => {
      const stage = new FeatureStage(features, each);
      await stage.makeChain(SIZE);
      const before = await viewAfter(stage.disk, '/top');
      const snapshots = await snapshotViews(stage.disk, '/top');
      const survivors = await stage.cut(line);
      const after = await viewAfter(stage.disk.durable(), '/top');
      if (verb.changes !== true) expect(firstDifference(after, before)).toBe(-1);
      const late = await snapshotViews(stage.disk.durable(), '/top');
      for (const [index, host] of survivors.entries()) {
        const where = `cut ${index} of ${survivors.length}`;
        const view = await viewAfter(host, '/top', { lazy });
        const isOld = firstDifference(view, before) === -1;
        expect([isOld, firstDifference(view, after) === -1], where).toContain(true);
        // A snapshot shows what commit writes to the backing file where it has nothing.
        if (line.startsWith('commit')) continue;
        const found = await snapshotViews(host, '/top');
        const either = [snapshots, late].map((all) => shortened(all, view.length));
        expect(either, where).toContainEqual(shortened(found, view.length));
        if (verb.changes !== true) await expectTrusted(host, '/top', { before, view });
      }
    });
  });
});

describe('check -r all of damaged refcounts, the power cut at every write', () => {
  it.each(someOf(Object.keys(FEATURES), 3))('on an image with %s', async (name) => {
    const features = FEATURES[name] as Features;
    await forEachSeed(SEEDS, async (seed) => {
      const stage = new FeatureStage(features, seed);
      await stage.makeChain(SIZE);
      const before = await viewAfter(stage.disk, '/top');
      const snapshots = await snapshotViews(stage.disk, '/top');
      stage.damageRefcounts();
      const survivors = await stage.cut('check -q -r all /top');
      for (const [index, host] of survivors.entries()) {
        const where = `cut ${index} of ${survivors.length}`;
        expect(firstDifference(await shownView(host, '/top'), before), where).toBe(-1);
        expect(await snapshotViews(host, '/top'), where).toEqual(snapshots);
      }
      await viewAfter(stage.disk.durable(), '/top');
    });
  });
});

/** An image that has another size shows as much of its snapshots. */
function shortened(
  views: Readonly<Record<string, string>>,
  length: number,
): Readonly<Record<string, string>> {
  return Object.fromEntries(
    Object.entries(views).map(([name, view]) => [name, view.slice(0, length * 2)]),
  );
}
