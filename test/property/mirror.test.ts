// SPDX-License-Identifier: Apache-2.0
// Mirrors and commits while several guests write at once: at the pivot the copy is the source.
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Permission, SeededRandom } from '../../src/base/index.js';
import type { Random } from '../../src/base/index.js';
import type { Backend, Node } from '../../src/block/index.js';
import { startCommit, startMirror } from '../../src/jobs/index.js';
import type { Job } from '../../src/jobs/index.js';
import {
  createImage,
  firstDifference,
  makeChain,
  makeStage,
  openImage,
  readAll,
  turns,
  SUBCLUSTERED,
} from '../helpers/job-stage.js';
import type { Stage } from '../helpers/job-stage.js';
import { runs } from '../helpers/seeds.js';

const SIZE = 3 * 2 ** 19 + 512;
const RUNS = runs(8, 100);
const WRITERS = 3;

const cluster = fc.constantFrom(4096, SUBCLUSTERED, 65_536, 262_144);
const clusterSizes = fc.tuple(cluster, cluster, cluster);

/** Writers with a third of the disk each; what is acknowledged is what must be read. */
class Guests {
  stopped = false;
  readonly #backends: readonly Backend[];
  readonly expected: Uint8Array;

  constructor(backends: readonly Backend[], expected: Uint8Array) {
    this.#backends = backends;
    this.expected = expected;
  }

  static async attach(stage: Stage, node: Node): Promise<Guests> {
    const expected = await readAll(node);
    const backends: Backend[] = [];
    for (let count = 0; count < WRITERS; count += 1) {
      const permissions = {
        taken: Permission.consistentRead | Permission.write,
        shared: Permission.all & ~Permission.resize,
      };
      backends.push(await stage.graph.attach(node, `guest ${count}`, permissions));
    }
    return new Guests(backends, expected);
  }

  get node(): Node | undefined {
    return this.#backends[0]?.node;
  }

  async run(seed: number): Promise<void> {
    const writers = this.#backends.map(async (backend, index) => {
      const random = new SeededRandom(seed * WRITERS + index);
      while (!this.stopped) {
        await this.#act(backend, index, random);
        await turns(1 + random.below(8));
      }
    });
    await Promise.all(writers);
  }

  async #act(backend: Backend, index: number, random: Random): Promise<void> {
    const sectors = Math.floor(this.expected.length / 512 / WRITERS);
    const first = random.below(sectors);
    const offset = (index * sectors + first) * 512;
    const size = Math.min(sectors - first, 1 + random.below(250)) * 512;
    const choice = random.below(10);
    if (choice < 6) {
      const bytes = new Uint8Array(size).fill(1 + random.below(255));
      await backend.write(offset, bytes);
      this.expected.set(bytes, offset);
    } else if (choice < 8) {
      await backend.writeZeroes(offset, size);
      this.expected.fill(0, offset, offset + size);
    } else {
      const bytes = new Uint8Array(size);
      await backend.read(offset, bytes);
      const wanted = this.expected.subarray(offset, offset + size);
      expect(firstDifference(bytes, wanted)).toBe(-1);
    }
  }
}

async function reaches(job: Job, status: string): Promise<void> {
  for (let turn = 0; job.status !== status && turn < 20_000; turn += 1) {
    if (['concluded', 'null'].includes(job.status)) break;
    await turns(1);
  }
  expect(job.info()).toMatchObject({ status });
}

/** Pauses and resumes a little, then asks for the end; guests write all the time. */
async function toPending(job: Job, random: Random, pivot: boolean): Promise<void> {
  for (let count = random.below(3); count > 0; count -= 1) {
    await turns(random.below(4));
    if (!['running', 'ready'].includes(job.status)) continue;
    job.pause();
    await turns(random.below(4));
    job.resume();
  }
  await reaches(job, 'ready');
  await turns(random.below(10));
  if (pivot) job.complete();
  else await job.cancelBlock(false);
  await reaches(job, 'pending');
}

function keepLanesAway(stage: Stage, name: string): void {
  stage.graph.require(name).addObserver({ beforeWrite: () => undefined });
}

async function chain(seed: number, sizes: readonly number[]): Promise<Stage> {
  const stage = makeStage({ seed });
  await makeChain(stage, { seed, clusterSizes: sizes, size: SIZE });
  return stage;
}

describe('while guests write', () => {
  it('a mirror is its source at the pivot, in both copy modes and when they change', async () => {
    const modes = ['background', 'write-blocking', 'changed'] as const;
    const mode = fc.constantFrom(...modes);
    const granularity = fc.constantFrom(0, 512, 4096, 131_072);
    await fc.assert(
      fc.asyncProperty(
        fc.nat(), clusterSizes, cluster, mode, granularity,
        fc.constantFrom('full' as const, 'top' as const), fc.boolean(),
        async (seed, sizes, targetCluster, copyMode, grain, sync, pivot) => {
          const stage = await chain(seed, sizes);
          await createImage(stage, {
            name: 'target', size: SIZE, clusterSize: targetCluster, backing: 'mid',
          });
          await openImage(stage, 'target', { backing: sync === 'top' ? 'mid' : null });
          const { graph } = stage;
          const [source, target] = [graph.require('top'), graph.require('target')];
          if (seed % 3 === 0) keepLanesAway(stage, 'target');
          const guests = await Guests.attach(stage, source);
          const writing = guests.run(seed);
          const job = await startMirror(stage.jobs, {
            'job-id': 'm', device: 'top', target: 'target', sync,
            'copy-mode': copyMode === 'changed' ? 'background' : copyMode,
            granularity: grain, 'auto-finalize': false,
          });
          if (copyMode === 'changed') {
            await turns(seed % 30);
            job.change({ type: 'mirror', 'copy-mode': 'write-blocking' });
          }
          await toPending(job, new SeededRandom(seed), pivot);
          expect(firstDifference(await readAll(source), guests.expected)).toBe(-1);
          expect(firstDifference(await readAll(target), guests.expected)).toBe(-1);
          await job.finalize();
          expect(job.info().error).toBeUndefined();
          await turns(5);
          guests.stopped = true;
          await writing;
          expect(guests.node?.name).toBe(pivot ? 'target' : 'top');
          const used = pivot ? target : source;
          expect(firstDifference(await readAll(used), guests.expected)).toBe(-1);
          await target.flush();
          expect(await target.check('none')).toMatchObject({ corruptions: 0, leaks: 0 });
          expect([...graph.nodes].some((node) => node.driver.kind === 'filter')).toBe(false);
        },
      ),
      { numRuns: RUNS },
    );
  });

  it('an active commit leaves the guests on the base, which reads as the top did', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.nat(), clusterSizes, fc.constantFrom('base', 'mid'), fc.boolean(),
        async (seed, sizes, baseName, pivot) => {
          const stage = await chain(seed, sizes);
          const { graph } = stage;
          const [top, base] = [graph.require('top'), graph.require(baseName)];
          if (seed % 3 === 0) keepLanesAway(stage, baseName);
          const guests = await Guests.attach(stage, top);
          const writing = guests.run(seed);
          const job = await startCommit(stage.jobs, {
            'job-id': 'c', device: 'top', 'base-node': baseName, 'auto-finalize': false,
          });
          await toPending(job, new SeededRandom(seed), pivot);
          expect(firstDifference(await readAll(top), guests.expected)).toBe(-1);
          expect(firstDifference(await readAll(base), guests.expected)).toBe(-1);
          await job.finalize();
          expect(job.info().error).toBeUndefined();
          await turns(5);
          guests.stopped = true;
          await writing;
          expect(guests.node?.name).toBe(pivot ? baseName : 'top');
          const used = pivot ? base : top;
          expect(firstDifference(await readAll(used), guests.expected)).toBe(-1);
          await used.flush();
          await base.flush();
          expect(await base.check('none')).toMatchObject({ corruptions: 0, leaks: 0 });
        },
      ),
      { numRuns: RUNS },
    );
  });

  it('a commit below the active layer never changes what the guests read', async () => {
    const shorter = fc.constantFrom(SIZE, SIZE / 2 - 256, SIZE - 65_536);
    await fc.assert(
      fc.asyncProperty(
        fc.nat(), clusterSizes, shorter, shorter,
        async (seed, sizes, baseSize, midSize) => {
          const stage = makeStage({ seed });
          const all = [baseSize, midSize, SIZE];
          await makeChain(stage, { seed, clusterSizes: sizes, sizes: all });
          const { graph } = stage;
          const [top, base] = [graph.require('top'), graph.require('base')];
          if (seed % 3 === 0) keepLanesAway(stage, 'base');
          const middle = await readAll(graph.require('mid'));
          const guests = await Guests.attach(stage, top);
          const writing = guests.run(seed);
          const job = await startCommit(stage.jobs, {
            'job-id': 'c', device: 'top', 'top-node': 'mid', 'auto-dismiss': false,
          });
          await job.ended;
          guests.stopped = true;
          await writing;
          expect(job.info()).toMatchObject({ status: 'concluded' });
          expect(job.info().error).toBeUndefined();
          expect(top.backing).toBe(base);
          expect(top.backingLink()).toEqual({ file: 'base.qcow2', format: 'qcow2' });
          expect(firstDifference(await readAll(top), guests.expected)).toBe(-1);
          const committed = (await readAll(base)).subarray(0, middle.length);
          expect(firstDifference(committed, middle)).toBe(-1);
          await base.flush();
          expect(await base.check('none')).toMatchObject({ corruptions: 0, leaks: 0 });
        },
      ),
      { numRuns: RUNS },
    );
  });
});
