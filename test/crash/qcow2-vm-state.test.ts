// SPDX-License-Identifier: Apache-2.0
// The state of a machine behind the disk: what was written is read, alone and in snapshots, and a
// power cut at any write leaves old or new sectors, the disk as it was, and leaks at worst.
import { describe, expect, it } from 'vitest';

import { internalSnapshotsOf, vmStateOf } from '../../src/block/index.js';
import type { Node, VmState } from '../../src/block/index.js';
import type { MemoryHost } from '../../src/host/index.js';
import { FEATURES, FEATURE_SIZE as SIZE } from '../helpers/feature-cases.js';
import { FeatureStage, openWithKey, viewAfter } from '../helpers/feature-stage.js';
import type { Features } from '../helpers/feature-stage.js';
import { READ_WRITE } from '../helpers/graph.js';
import { firstDifference, makeGraph } from '../helpers/job-stage.js';
import { forEachSeed, someOf } from '../helpers/seeds.js';

const SECTOR = 512;
const STATE = 96 * 1024;
const isCampaign = process.env['BLOCKWRIGHT_CAMPAIGN'] !== undefined;
const SNAPSHOT = {
  name: 'with state',
  dateSeconds: 1,
  dateNanoseconds: 0,
  vmClockSeconds: 0,
  vmClockNanoseconds: 0,
};

function stateOf(node: Node): VmState {
  const state = vmStateOf(node);
  if (state === null) throw new Error('no room for a state');
  return state;
}

async function stateBytes(node: Node): Promise<Uint8Array> {
  const bytes = new Uint8Array(STATE);
  await stateOf(node).read(0, bytes);
  return bytes;
}

async function stateAfter(host: MemoryHost): Promise<Uint8Array> {
  const graph = makeGraph(host);
  const bytes = await stateBytes(await openWithKey(graph, '/top', true));
  await graph.closeAll();
  return bytes;
}

/** Each sector is full of one of the bytes that it may have. */
function expectSectors(bytes: Uint8Array, allowed: readonly (readonly number[])[], where: string) {
  allowed.forEach((tags, sector) => {
    const part = bytes.subarray(sector * SECTOR, (sector + 1) * SECTOR);
    const isWell = tags.includes(part[0] ?? -1) && part.every((byte) => byte === part[0]);
    if (!isWell) expect.fail(`${where}: sector ${sector} has ${part[0]}, not ${tags.join(', ')}`);
  });
}

describe('the VM state of an image, the power cut at every write', () => {
  it.each(someOf(Object.keys(FEATURES), 6))('with %s', async (name) => {
    const features = FEATURES[name] as Features;
    await forEachSeed(isCampaign ? 4 : 1, async (seed) => {
      const stage = new FeatureStage(features, seed);
      await stage.makeChain(SIZE);
      const before = await viewAfter(stage.disk, '/top');
      const graph = stage.graphOn(stage.disk);
      const node = await stage.openOn(graph, '/top', false);
      const user = await graph.attach(node, 'guest', READ_WRITE);
      let allowed: number[][] = Array.from({ length: STATE / SECTOR }, () => [0]);
      const end = stateOf(node).offset + STATE;
      const cuts: { host: MemoryHost; allowed: number[][] }[] = [];
      stage.disk.onWrite = () => {
        const now = allowed.map((tags) => [...tags]);
        cuts.push({ host: stage.disk.afterPowerLoss(stage.random), allowed: now });
      };
      for (let tag = 1; tag <= (isCampaign ? 12 : 6); tag += 1) {
        const first = stage.random.below(allowed.length);
        const count = 1 + stage.random.below(Math.min(60, allowed.length - first));
        for (let sector = first; sector < first + count; sector += 1) allowed[sector]?.push(tag);
        await stateOf(node).write(first * SECTOR, new Uint8Array(count * SECTOR).fill(tag));
        if (tag % 3 === 0) {
          await node.flush();
          allowed = allowed.map((tags) => tags.slice(-1));
        }
        // Refused where there is a data file or a refcount has room for one only.
        if (tag === 4) await internalSnapshotsOf(node)?.create(SNAPSHOT).catch(() => undefined);
      }
      stage.disk.onWrite = null;
      const last = allowed.map((tags) => tags.slice(-1));
      expectSectors(await stateBytes(node), last, 'read back');
      await user.detach();
      await graph.closeAll();
      for (const [index, cut] of cuts.entries()) {
        const view = await viewAfter(cut.host, '/top', { lazy: features.lazy === true });
        expect(firstDifference(view, before), `cut ${index}`).toBe(-1);
        expectSectors(await stateAfter(cut.host), cut.allowed, `cut ${index}`);
      }
      expect(firstDifference(await viewAfter(stage.disk, '/top'), before)).toBe(-1);
      expectSectors(await stateAfter(stage.disk), last, 'closed');
      expect(end).toBeGreaterThan(SIZE);
    });
  });
});

describe('the VM state of an image', () => {
  it('is in the snapshot that was made with it, and stays when the image grows', async () => {
    const stage = new FeatureStage({ options: 'cluster_size=4k', alone: true }, 1);
    await stage.makeChain(SIZE);
    const graph = stage.graphOn(stage.disk);
    const node = await stage.openOn(graph, '/top', false);
    const user = await graph.attach(node, 'guest', READ_WRITE);
    const state = stateOf(node);
    await state.write(SECTOR, new Uint8Array(10_000).fill(7));
    const then = await stateBytes(node);
    const snapshot = await internalSnapshotsOf(node)?.create(SNAPSHOT);
    await state.write(0, new Uint8Array(STATE).fill(8));
    await node.truncate(SIZE * 2, { exact: true, preallocation: 'off' });
    expect(await stateBytes(node)).toEqual(new Uint8Array(STATE).fill(8));
    if (snapshot !== undefined) await internalSnapshotsOf(node)?.apply(snapshot);
    expect(await stateBytes(node)).toEqual(then);
    await user.detach();
    await graph.closeAll();
    await viewAfter(stage.disk, '/top');
  });

  it('lies past what the image may grow over: a larger disk shows nothing of it', async () => {
    const stage = new FeatureStage({ options: 'cluster_size=512', alone: true }, 1);
    await stage.makeChain(SIZE);
    const graph = stage.graphOn(stage.disk);
    const node = await stage.openOn(graph, '/top', false);
    const user = await graph.attach(node, 'guest', READ_WRITE);
    await stateOf(node).write(0, new Uint8Array(STATE).fill(8));
    await node.truncate(SIZE * 4, { exact: true, preallocation: 'off' });
    const bytes = new Uint8Array(SIZE * 3);
    await user.read(SIZE, bytes);
    expect(bytes.every((byte) => byte === 0)).toBe(true);
    await user.detach();
    await graph.closeAll();
    await viewAfter(stage.disk, '/top');
  });
});
