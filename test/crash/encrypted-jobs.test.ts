// SPDX-License-Identifier: Apache-2.0
// Jobs on chains of encrypted images, each with a key of its own: what is copied is decrypted and
// encrypted anew by where it lies. The power is cut at every write: the guest's view is the same,
// with leaks at most, and what is concluded is on disk.
import { describe, expect, it } from 'vitest';

import { SeededRandom } from '../../src/base/index.js';
import { skipFilters } from '../../src/block/copy/index.js';
import type { Graph, Node, NodeOptions } from '../../src/block/index.js';
import { CrashDisk } from '../../src/host/index.js';
import type { MemoryHost } from '../../src/host/index.js';
import { startCommit, startMirror, startStream } from '../../src/jobs/index.js';
import type { Job } from '../../src/jobs/index.js';
import {
  createImage,
  firstDifference,
  Guest,
  makeGraph,
  makeStage,
  openImage,
  openPreparedChain,
  readAll,
  turns,
} from '../helpers/job-stage.js';
import type { Stage } from '../helpers/job-stage.js';
import { forEachSeed, runs, someOf } from '../helpers/seeds.js';
import { startBackup } from '../helpers/start-backup.js';

const SIZE = 192 * 1024;
const CLUSTERS = [65_536, 4096, 16_384];
const KEY = { encrypt: { 'key-secret': 'k' } };

/** From the bottom up, and the target. */
const CHAINS = [
  [true, true, true, true],
  [false, true, false, true],
  [true, false, true, false],
] as const;

interface Kind {
  readonly name: string;
  readonly start: (stage: Stage) => Promise<Job>;
  /** Must show what the guest sees in the end. */
  readonly result: 'guest' | 'target';
}

const copy = { 'job-id': 'j', device: 'top', target: 'target', sync: 'full' } as const;
const KINDS: readonly Kind[] = [
  {
    name: 'a stream',
    start: ({ jobs }) => startStream(jobs, { 'job-id': 'j', device: 'top', 'base-node': 'base' }),
    result: 'guest',
  },
  {
    name: 'a stream of the whole chain',
    start: ({ jobs }) => startStream(jobs, { 'job-id': 'j', device: 'top' }),
    result: 'guest',
  },
  {
    name: 'a commit',
    start: ({ jobs }) => startCommit(jobs, { 'job-id': 'j', device: 'top', 'top-node': 'mid' }),
    result: 'guest',
  },
  {
    name: 'an active commit',
    start: ({ jobs }) => startCommit(jobs, { 'job-id': 'j', device: 'top' }),
    result: 'guest',
  },
  { name: 'a mirror', start: ({ jobs }) => startMirror(jobs, copy), result: 'guest' },
  { name: 'a backup', start: ({ jobs }) => startBackup(jobs, copy), result: 'target' },
];

async function stageOn(host: MemoryHost, seed: number, chain: readonly boolean[]): Promise<Stage> {
  const stage = makeStage({ host });
  const spec = { seed, size: SIZE, clusterSizes: CLUSTERS, scribbles: 4 };
  await openPreparedChain(stage, { ...spec, encrypted: chain.slice(0, 3) });
  await createImage(stage, { name: 'target', size: SIZE, encrypted: chain[3] ?? false });
  await openImage(stage, 'target', { hasKey: true });
  await stage.graph.require('target').flush();
  return stage;
}

/** With the files that the headers name, each with the key. */
async function openByHeaders(graph: Graph, filename: string): Promise<Node> {
  const open = (backing: string | null): Promise<Node> =>
    graph.open({
      driver: 'qcow2', 'read-only': true, backing, file: { driver: 'file', filename }, ...KEY,
    } as unknown as NodeOptions);
  const alone = await open(null);
  const link = alone.backingLink()?.file ?? null;
  if (link === null) return alone;
  await graph.close(alone);
  return open((await openByHeaders(graph, fileIn(link))).name);
}

/** A header names an encrypted backing file with the id of its secret. */
function fileIn(link: string): string {
  if (!link.startsWith('json:')) return link;
  const options = JSON.parse(link.slice(5)) as { readonly file: { readonly filename: string } };
  return options.file.filename;
}

/** As a newcomer finds it; it checks with leaks at most. */
async function inspect(host: MemoryHost, name: string): Promise<Uint8Array> {
  const graph = makeGraph(host);
  const node = await openByHeaders(graph, `${name}.qcow2`);
  const { corruptions, checkErrors, messages } = await node.check('none');
  expect([corruptions, checkErrors], messages.join('; ')).toEqual([0, 0]);
  const bytes = await readAll(node);
  await graph.closeAll();
  return bytes;
}

async function settle(job: Job): Promise<void> {
  for (let turn = 0; turn < 5000 && !['concluded', 'null'].includes(job.status); turn += 1) {
    if (job.status === 'ready') job.complete();
    await turns(1);
  }
  expect(job.info().error).toBeUndefined();
}

const cases = KINDS.flatMap((kind) =>
  CHAINS.map((chain) => ({ ...kind, chain, keys: chain.map(Number).join('') })),
);

describe('jobs on encrypted images, the power cut at every write', () => {
  it.each(someOf(cases, 4))('$name, keys $keys', async ({ start, result, chain }) => {
    await forEachSeed(runs(1, 4), async (seed) => {
      const disk = new CrashDisk({ seed });
      const stage = await stageOn(disk, seed, chain);
      const guest = await Guest.attach(stage, stage.graph.require('top'));
      const random = new SeededRandom(seed);
      const survivors: MemoryHost[] = [];
      disk.onWrite = () => {
        for (let cut = 0; cut < 4; cut += 1) survivors.push(disk.afterPowerLoss(random));
      };
      await settle(await start(stage));
      disk.onWrite = null;
      expect(survivors.length).toBeGreaterThan(0);
      for (const [index, survivor] of survivors.entries()) {
        const view = await inspect(survivor, 'top');
        expect(firstDifference(view, guest.expected), `cut ${index}`).toBe(-1);
      }
      const last = result === 'target' ? 'target' : skipFilters(guest.backend.node).name;
      expect(firstDifference(await inspect(disk.durable(), last), guest.expected)).toBe(-1);
    });
  });
});
