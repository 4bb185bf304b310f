// SPDX-License-Identifier: Apache-2.0
// Guests write at random while jobs run, in seeded order over a host that answers inline or later.
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Permission, SeededRandom } from '../../src/base/index.js';
import { copyImage } from '../../src/block/copy/index.js';
import { startStream } from '../../src/jobs/index.js';
import type { Job } from '../../src/jobs/index.js';
import {
  createImage,
  firstDifference,
  Guest,
  makeChain,
  makeStage,
  openImage,
  openRaw,
  readAll,
  turns,
  SUBCLUSTERED,
} from '../helpers/job-stage.js';
import type { Stage } from '../helpers/job-stage.js';
import { runs } from '../helpers/seeds.js';
import { startBackup } from '../helpers/start-backup.js';

const SIZE = 3 * 2 ** 19;
const RUNS = runs(8, 100);

interface Layout {
  readonly clusterSizes: readonly number[];
  readonly sizes: readonly number[];
}

const cluster = fc.constantFrom(4096, SUBCLUSTERED, 65_536, 262_144);
const layout: fc.Arbitrary<Layout> = fc.record({
  clusterSizes: fc.tuple(cluster, cluster, cluster),
  // Backing files may be shorter or longer than what lies on them.
  sizes: fc.tuple(
    fc.constantFrom(SIZE, SIZE / 2 + 512, SIZE + 65_536),
    fc.constantFrom(SIZE, SIZE / 3, SIZE + 4096),
    fc.constantFrom(SIZE, SIZE - 512),
  ),
});

/** An observer that may wait keeps lanes away: the bytes then go through the nodes. */
function keepLanesAway(stage: Stage, name: string): void {
  stage.graph.require(name).addObserver({ beforeWrite: () => undefined });
}

/** Lets a guest act until the job has ended. */
async function actWhile(job: Job, guest: Guest, random: SeededRandom): Promise<void> {
  let running = true;
  let paused = false;
  void job.ended.then(() => (running = false));
  for (let count = 0; running && count < 150; count += 1) {
    await guest.act(random);
    if (random.chance(0.5)) await turns(random.below(3));
    if (!['running', 'paused'].includes(job.status)) continue;
    if (paused && random.chance(0.3)) {
      job.resume();
      paused = false;
    } else if (!paused && random.chance(0.05)) {
      job.pause();
      paused = true;
    }
  }
  if (paused && ['running', 'paused'].includes(job.status)) job.resume();
  await job.ended;
}

async function makeGuests(stage: Stage, seed: number, shape: Layout): Promise<Guest> {
  await makeChain(stage, { seed, ...shape });
  return Guest.attach(stage, stage.graph.require('top'));
}

describe('jobs while guests write', () => {
  it('stream never changes what the guest reads, and leaves a clean image', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.nat(),
        layout,
        fc.constantFrom('base', null),
        fc.boolean(),
        async (seed, shape, base, lanes) => {
          const stage = makeStage({ seed });
          const guest = await makeGuests(stage, seed, shape);
          if (!lanes) keepLanesAway(stage, 'top');
          const random = new SeededRandom(seed);
          const job = await startStream(stage.jobs, {
            'job-id': 's',
            device: 'top',
            ...(base === null ? {} : { 'base-node': base }),
          });
          await actWhile(job, guest, random);
          const top = stage.graph.require('top');
          expect(job.info().error).toBeUndefined();
          expect(top.backing?.name ?? null).toBe(base);
          expect(firstDifference(await readAll(top), guest.expected)).toBe(-1);
          await guest.backend.flush();
          expect(await top.check('none')).toMatchObject({ corruptions: 0, leaks: 0 });
        },
      ),
      { numRuns: RUNS },
    );
  });

  it('backup holds the moment of its start', async () => {
    await fc.assert(
      fc.asyncProperty(fc.nat(), layout, cluster, fc.boolean(), async (seed, shape, size, raw) => {
        const stage = makeStage({ seed });
        const guest = await makeGuests(stage, seed, shape);
        const { length } = guest.expected;
        if (raw) {
          const rest = new Uint8Array(length).fill(0x5a);
          stage.host.putFile('target.raw', rest, length);
          await openRaw(stage, 'target');
        } else {
          await createImage(stage, { name: 'target', size: length, clusterSize: size });
          await openImage(stage, 'target');
        }
        const target = stage.graph.require('target');
        if (seed % 2 === 0) keepLanesAway(stage, 'target');
        const before = guest.expected.slice();
        const job = await startBackup(stage.jobs, {
          'job-id': 'b', device: 'top', target: 'target', sync: 'full',
        });
        await actWhile(job, guest, new SeededRandom(seed));
        expect(job.info().error).toBeUndefined();
        expect(firstDifference(await readAll(target), before)).toBe(-1);
        expect(firstDifference(await readAll(stage.graph.require('top')), guest.expected)).toBe(-1);
        if (raw) return;
        expect(await target.check('none')).toMatchObject({ corruptions: 0, leaks: 0 });
      }),
      { numRuns: RUNS },
    );
  });

  it('a whole view copied by the engine is the same, compressed or not', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.nat(),
        layout,
        fc.boolean(),
        fc.boolean(),
        async (seed, shape, zip, empty) => {
          const stage = makeStage({ seed });
          await makeChain(stage, { seed, ...shape });
          const source = stage.graph.require('top');
          await createImage(stage, { name: 'copy', size: source.length });
          const target = await openImage(stage, 'copy');
          if (seed % 2 === 0) keepLanesAway(stage, 'copy');
        const backend = await stage.graph.attach(target, 'convert', {
            taken: Permission.write,
            shared: Permission.all,
          });
          const progress: number[] = [];
          const failure = await copyImage(stage.jobs.engine, stage.graph.clock, {
            source: { node: source },
            target: backend,
            unit: 65_536,
            zeroGranularity: 65_536,
            compress: zip,
            targetIsZero: empty,
            onProgress: (bytes) => progress.push(bytes),
          });
          expect(failure).toBeNull();
          await backend.flush();
          expect(progress.at(-1)).toBe(source.length);
          expect(firstDifference(await readAll(target), await readAll(source))).toBe(-1);
          expect(await target.check('none')).toMatchObject({ corruptions: 0, leaks: 0 });
        },
      ),
      { numRuns: RUNS },
    );
  });
});
