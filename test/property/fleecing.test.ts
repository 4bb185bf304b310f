// SPDX-License-Identifier: Apache-2.0
// A snapshot is read while guests write at random, over a host that answers inline or later: it
// always is the disk as it was, or, once broken or given up, not to be read at all.
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { BlockError, Permission, SeededRandom } from '../../src/base/index.js';
import type { Backend, Driver, NodeOptions } from '../../src/block/index.js';
import { copyBeforeWrite } from '../../src/drivers/filters/copy-before-write/index.js';
import { snapshotAccess } from '../../src/drivers/filters/snapshot-access/index.js';
import { graphOn, MemoryHost, READ_WRITE } from '../helpers/graph.js';
import {
  createImage,
  firstDifference,
  Guest,
  makeChain,
  makeStage,
  openImage,
  readAll,
  turns,
} from '../helpers/job-stage.js';
import type { Stage } from '../helpers/job-stage.js';
import { forEachSeed, runs } from '../helpers/seeds.js';
import { startBackup } from '../helpers/start-backup.js';
import { testDriver } from '../helpers/test-driver.js';

const SIZE = 2 ** 20 + 4096;
const UNIT = 65_536;

interface Fleecing extends Stage {
  readonly guest: Guest;
  readonly snapshot: Backend;
  readonly before: Uint8Array;
}

interface Layout {
  readonly seed: number;
  readonly targetCluster?: number;
  /** The target reads from the disk what was not copied. */
  readonly over?: boolean;
  readonly options?: object;
}

async function fleece(layout: Layout): Promise<Fleecing> {
  const { seed, over = false } = layout;
  const stage = makeStage({ seed });
  await makeChain(stage, { seed, size: SIZE, scribbles: 6 });
  const clusterSize = layout.targetCluster ?? UNIT;
  const target = { name: 'target', size: SIZE, clusterSize };
  await createImage(stage, { ...target, ...(over ? { backing: 'top' } : {}) });
  await openImage(stage, 'target', { backing: over ? 'top' : null });
  await stage.graph.open({
    driver: 'copy-before-write',
    'node-name': 'cbw',
    file: 'top',
    target: 'target',
    discard: 'unmap',
    ...layout.options,
  } as NodeOptions);
  await stage.graph.open({
    driver: 'snapshot-access', 'node-name': 'snapshot', file: 'cbw', discard: 'unmap',
  } as NodeOptions);
  const guest = await Guest.attach(stage, stage.graph.require('cbw'));
  const snapshot = await stage.graph.attach(stage.graph.require('snapshot'), 'reader', {
    taken: Permission.consistentRead | Permission.write,
    shared: Permission.all,
  });
  return { ...stage, guest, snapshot, before: guest.expected.slice() };
}

/** Units that a reader has given up. */
type GivenUp = Set<number>;

interface Reader {
  readonly random: SeededRandom;
  /** Null: it gives nothing up. */
  readonly givenUp: GivenUp | null;
  /** What reads may fail with all the same. */
  readonly failures: readonly string[];
}

/** One read, status or discard of the snapshot, checked. */
async function useSnapshot(stage: Fleecing, reader: Reader): Promise<void> {
  const { random, givenUp, failures } = reader;
  const offset = random.below(SIZE / 512) * 512;
  const length = Math.min(SIZE - offset, (1 + random.below(300)) * 512);
  const units: number[] = [];
  for (let unit = Math.floor(offset / UNIT); unit * UNIT < offset + length; unit += 1) {
    units.push(unit);
  }
  const refused = units.some((unit) => givenUp?.has(unit) === true);
  const choice = random.below(10);
  try {
    if (choice === 0 && givenUp !== null) {
      await stage.snapshot.discard(offset, length);
      const isWhole = (unit: number): boolean =>
        unit * UNIT >= offset && Math.min(SIZE, (unit + 1) * UNIT) <= offset + length;
      for (const unit of units.filter(isWhole)) givenUp.add(unit);
      return;
    }
    if (choice < 3) await checkStatus(stage, offset, length);
    else {
      const bytes = new Uint8Array(length);
      await stage.snapshot.read(offset, bytes);
      expect(firstDifference(bytes, stage.before.subarray(offset, offset + length))).toBe(-1);
    }
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
    expect(refused ? ['EACCES'] : failures).toContain(error.errno);
    return;
  }
  expect(refused && choice >= 3).toBe(false);
}

async function checkStatus(stage: Fleecing, offset: number, length: number): Promise<void> {
  const status = await stage.snapshot.node.blockStatus(offset, length, true);
  expect(status.allocated).toBe(true);
  const part = stage.before.subarray(offset, offset + status.length);
  if (status.zero) expect(part.every((byte) => byte === 0)).toBe(true);
}

/** Guest and readers at once, each one request after the other. */
async function runTogether(
  stage: Fleecing,
  run: { seed: number; steps: number; discards?: boolean; failures?: readonly string[] },
  act: (random: SeededRandom) => Promise<void>,
): Promise<void> {
  const { seed, steps, discards = false, failures = [] } = run;
  const givenUp: GivenUp | null = discards ? new Set() : null;
  const read = async (at: number): Promise<void> => {
    const random = new SeededRandom(seed * 7 + at);
    for (let step = 0; step < steps; step += 1) {
      await useSnapshot(stage, { random, failures, givenUp });
      if (random.chance(0.3)) await turns(random.below(3));
    }
  };
  const write = async (): Promise<void> => {
    const random = new SeededRandom(seed);
    for (let step = 0; step < steps; step += 1) {
      await act(random);
      if (random.chance(0.3)) await turns(random.below(3));
    }
  };
  // Of several readers one that discards would take the others by surprise.
  await Promise.all([write(), read(1), ...(discards ? [] : [read(2), read(3)])]);
}

async function checkImages(stage: Fleecing): Promise<void> {
  const top = stage.graph.require('top');
  expect(firstDifference(await readAll(top), stage.guest.expected)).toBe(-1);
  expect((await top.check('none')).corruptions).toBe(0);
  expect((await stage.graph.require('target').check('none')).corruptions).toBe(0);
}

const layouts = fc.record({
  seed: fc.nat(10_000),
  targetCluster: fc.constantFrom(4096, 65_536),
  over: fc.boolean(),
});

describe('a snapshot beside its guest', () => {
  it('is the disk as it was, whatever is written and given up', async () => {
    await fc.assert(
      fc.asyncProperty(layouts, fc.boolean(), async (layout, discards) => {
        const stage = await fleece(layout);
        const { seed } = layout;
        await runTogether(stage, { seed, steps: 25, discards }, (random) =>
          stage.guest.act(random),
        );
        await checkImages(stage);
      }),
      { numRuns: runs(8, 50) },
    );
  }, 60_000);

  it('is copied by a backup job byte for byte', async () => {
    await forEachSeed(runs(4, 20), async (seed) => {
      const stage = await fleece({ seed, over: seed % 2 === 0 });
      await createImage(stage, { name: 'backup', size: SIZE });
      await openImage(stage, 'backup');
      const random = new SeededRandom(seed);
      for (let count = 0; count < 5; count += 1) await stage.guest.act(random);
      const job = await startBackup(stage.jobs, {
        'job-id': 'b', device: 'snapshot', target: 'backup', sync: 'full', 'auto-dismiss': false,
      });
      let running = true;
      void job.ended.then(() => (running = false));
      for (let count = 0; running && count < 100; count += 1) {
        if (job.info().status === 'concluded') break;
        await stage.guest.act(random);
        if (random.chance(0.3)) await turns(random.below(3));
        if (random.chance(0.1)) {
          const names = ['cbw', 'top', 'target', 'snapshot', 'mid'];
          const node = stage.graph.require(names[random.below(names.length)] ?? 'cbw');
          (await stage.graph.drain([node])).end();
        }
      }
      while (job.info().status !== 'concluded') await turns(1);
      expect(job.info().error).toBeUndefined();
      const backup = await readAll(stage.graph.require('backup'));
      expect(firstDifference(backup, stage.before)).toBe(-1);
      await checkImages(stage);
    });
  }, 60_000);

  it('pieces that are deleted stay as long as others need them, then all is closed', async () => {
    await forEachSeed(runs(3, 20), async (seed) => {
      const stage = await fleece({ seed });
      const { graph, guest, snapshot } = stage;
      const random = new SeededRandom(seed);
      const names = ['snapshot', 'cbw', 'target', 'top', 'mid', 'base'];
      const running = runTogether(stage, { seed, steps: 15 }, (own) => guest.act(own));
      while (names.length > 0) {
        const [name] = names.splice(random.below(names.length), 1);
        await graph.close(graph.require(name ?? ''));
        await turns(random.below(4));
      }
      await running;
      const ends = [snapshot, guest.backend];
      if (random.chance(0.5)) ends.reverse();
      for (const backend of ends) await backend.detach();
      expect([...graph.nodes]).toEqual([]);
      // No lock has stayed.
      await openImage(stage, 'top');
      await openImage(stage, 'target');
    });
  }, 60_000);
});

describe('a target that fails', () => {
  const faults = (['write', 'read', 'sync', 'discard', 'write-zeroes'] as const).flatMap(
    (operation) => [1, 2, 3, 5, 8, 13].map((nth) => ({ operation, nth })),
  );

  it('fails guest writes, and neither the disk nor the snapshot ever changes by that', async () => {
    for (const [seed, { operation, nth }] of faults.entries()) {
      const stage = await fleece({ seed });
      const { guest } = stage;
      stage.host.faults.add({ operation, nth, errno: 'ENOSPC', path: 'target.qcow2' });
      const run = { seed, steps: 15, failures: ['ENOSPC'] };
      await runTogether(stage, run, async (random) => {
        const before = guest.expected.slice();
        try {
          await guest.act(random);
        } catch (error) {
          expect(error).toMatchObject({ errno: 'ENOSPC' });
          guest.expected.set(before);
        }
      });
      stage.host.faults.clear();
      await checkImages(stage);
    }
  }, 60_000);

  it('breaks the snapshot, and no guest write fails', async () => {
    for (const [seed, { operation, nth }] of faults.entries()) {
      const stage = await fleece({ seed, options: { 'on-cbw-error': 'break-snapshot' } });
      const lasting = seed % 2 === 0;
      stage.host.faults.add({ operation, nth, errno: 'EIO', path: 'target.qcow2', lasting });
      const act = (random: SeededRandom): Promise<void> => stage.guest.act(random);
      await runTogether(stage, { seed, steps: 15, failures: ['EACCES', 'EIO'] }, act);
      const top = await readAll(stage.graph.require('top'));
      expect(firstDifference(top, stage.guest.expected)).toBe(-1);
    }
  }, 60_000);
});

/** Answers come after a random number of turns; the device looks at its bytes only then. */
function slowly(random: SeededRandom): () => Promise<void> {
  return () => turns(random.below(6));
}

async function crowdedFleecing(seed: number): Promise<void> {
  const random = new SeededRandom(seed);
  const size = 5 * UNIT + 512 * random.below(UNIT / 512);
  const bytes = new Uint8Array(size);
  random.fill(bytes);
  const before = bytes.slice();
  const gate = slowly(random);
  const source = testDriver({ bytes, gate });
  const target = testDriver({ bytes: new Uint8Array(size).fill(0xff), gate });
  const graph = graphOn(new MemoryHost(), [
    source.driver,
    { ...target.driver, name: 'target' },
    copyBeforeWrite as unknown as Driver<never>,
    snapshotAccess as unknown as Driver<never>,
  ]);
  const filter = { driver: 'copy-before-write', 'node-name': 'cbw', file: { driver: 'test' } };
  await graph.open({ ...filter, target: { driver: 'target' } } as NodeOptions);
  await graph.open({ driver: 'snapshot-access', 'node-name': 'then', file: 'cbw' } as NodeOptions);
  const guest = await graph.attach(graph.require('cbw'), 'guest', READ_WRITE);
  const snapshot = await graph.attach(graph.require('then'), 'reader', READ_WRITE);
  const range = (): readonly [number, number] => {
    const offset = random.below(size - 1);
    return [offset, Math.min(size - offset, 1 + random.below(2 * UNIT))];
  };
  const write = async (): Promise<void> => {
    const [offset, length] = range();
    const choice = random.below(4);
    if (choice === 0) await guest.writeZeroes(offset, length);
    else if (choice === 1) await guest.discard(offset, length);
    else await guest.write(offset, new Uint8Array(length).fill(random.below(256)));
  };
  const read = async (): Promise<void> => {
    const [offset, length] = range();
    const found = new Uint8Array(length);
    await snapshot.read(offset, found);
    expect(firstDifference(found, before.subarray(offset, offset + length))).toBe(-1);
  };
  const pause = async (): Promise<void> => {
    const section = await graph.drain([graph.require('cbw')]);
    expect([...graph.nodes].every((node) => node.inFlight === 0)).toBe(true);
    section.end();
  };
  const running: Promise<void>[] = [];
  for (let step = 0; step < 60; step += 1) {
    const choice = random.below(20);
    if (choice === 0) running.push(pause());
    else running.push(choice < 9 ? write() : read());
    await turns(random.below(3));
  }
  await Promise.all(running);
  const found = new Uint8Array(size);
  await snapshot.read(0, found);
  expect(firstDifference(found, before)).toBe(-1);
  await snapshot.detach();
  await guest.detach();
}

describe('a snapshot in a crowd', () => {
  it('is never seen to change, however requests and drains cross', async () => {
    const seeds = fc.nat();
    await fc.assert(fc.asyncProperty(seeds, crowdedFleecing), { numRuns: runs(10, 60) });
  }, 60_000);
});
