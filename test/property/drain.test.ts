// SPDX-License-Identifier: Apache-2.0
// Drained sections under everything that may happen beside them, in every order that a scheduler
// gives: requests, jobs, graph changes, users and nodes that go, sections that nest and overlap.
//
// Laws: while a section lasts no outside user above its nodes has anything in flight; every request
// ends, once; when the last section has ended all go on; nothing hangs, however long limits are.

import fc from 'fast-check';
import { beforeAll, describe, expect, it } from 'vitest';

import { BlockError, ManualClock, Permission, SeededRandom, Turns } from '../../src/base/index.js';
import type { Backend, DrainedSection, Graph, Node } from '../../src/block/index.js';
import { createGraph, createRegistry, requireOperation } from '../../src/block/index.js';
import { CopyEngine, createLanes } from '../../src/block/copy/index.js';
import { ThrottleGroup, UNLIMITED, withLimits } from '../../src/block/throttle/index.js';
import { DRIVER_LOADERS } from '../../src/engine/catalog.js';
import { MemoryHost } from '../../src/host/index.js';
import { JobRegistry, startStream } from '../../src/jobs/index.js';
import type { Job } from '../../src/jobs/index.js';
import {
  createImage,
  firstDifference,
  openImage,
  readAll,
  scribble,
} from '../helpers/job-stage.js';
import { runs } from '../helpers/seeds.js';
import { startBackup } from '../helpers/start-backup.js';

const CLUSTER = 65_536;
const SIZE = 32 * CLUSTER;
const SLOT = 4096;
/** Turns of the event loop that no run comes near. */
const MOST_TURNS = 20_000;

const LOADED = [
  'file',
  'null-co',
  'qcow2',
  'throttle',
  'copy-on-read',
  'copy-before-write',
] as const;
const NODES = ['base', 'top', 'head', 'over', 'extra'] as const;
const step = fc.oneof(
  { weight: 5, arbitrary: fc.record({ kind: fc.constant('write'), user: fc.nat(1) }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant('read'), user: fc.nat(1) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('flush'), user: fc.nat(1) }) },
  {
    weight: 4,
    arbitrary: fc.record({ kind: fc.constant('begin'), node: fc.constantFrom(...NODES) }),
  },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('end') }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('reopen'), detect: fc.boolean() }) },
  {
    weight: 1,
    arbitrary: fc.record({ kind: fc.constant('snapshot'), node: fc.constantFrom('top', 'head') }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constantFrom('stream', 'backup') }) },
  {
    weight: 2,
    arbitrary: fc.record({ kind: fc.constantFrom('pause', 'resume', 'cancel', 'speed') }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constantFrom('detach', 'del') }) },
);
type Step = typeof step extends fc.Arbitrary<infer S> ? S : never;

interface Shape {
  readonly seed: number;
  readonly filters: readonly ('throttle' | 'copy-on-read')[];
  readonly drainsOnEvents: boolean;
}

class World {
  readonly clock = new ManualClock();
  readonly host: MemoryHost;
  readonly graph: Graph;
  readonly jobs: JobRegistry;
  readonly users: Backend[] = [];
  readonly sections: { readonly nodes: readonly Node[]; readonly section: DrainedSection }[] = [];
  readonly started: Job[] = [];
  /** What came of events: sections begun in the middle of a job's change of state. */
  readonly sideWork: Promise<void>[] = [];
  readonly commands = new Turns();
  expected: Uint8Array = new Uint8Array(0);
  ended = 0;
  /** Steps that have begun and not ended. */
  readonly waiting = new Set<string>();
  #slot = 0;

  constructor(readonly shape: Shape) {
    this.host = new MemoryHost({ seed: shape.seed, clock: this.clock });
    const group = new ThrottleGroup('g', this.clock);
    group.configure(withLimits(UNLIMITED, { 'bps-total': 50_000, 'iops-write': 20 }));
    const drivers = createRegistry({ drivers: DRIVER_LOADERS });
    this.graph = createGraph({
      host: this.host,
      registry: drivers,
      clock: this.clock,
      random: new SeededRandom(shape.seed),
      throttleGroup: (name) => (name === 'g' ? group : null),
    });
    this.jobs = new JobRegistry({
      graph: this.graph,
      engine: new CopyEngine({ lanes: createLanes(this.host) }),
      driver: (name) => drivers.load(name),
      emit: () => {
        // Each section pauses the job, which is an event again.
        if (shape.drainsOnEvents && this.sideWork.length < 6) this.sideWork.push(this.#drainOnce());
      },
    });
  }

  async #drainOnce(): Promise<void> {
    const section = await this.graph.drain([this.graph.require('top')]);
    section.end();
  }

  async build(): Promise<void> {
    const { graph, host, jobs } = this;
    const stage = { graph, host, jobs, trace: [], events: [] };
    await createImage(stage, { name: 'base', size: SIZE });
    await scribble(stage, await openImage(stage, 'base'), { seed: this.shape.seed, count: 8 });
    await createImage(stage, { name: 'top', size: SIZE, backing: 'base' });
    await openImage(stage, 'top', { backing: 'base' });
    for (const name of ['over', 'target']) {
      await createImage(stage, { name, size: SIZE });
      await openImage(stage, name);
    }
    const { filters } = this.shape;
    for (const [index, driver] of filters.entries()) {
      await graph.open({
        driver,
        'node-name': index === filters.length - 1 ? 'head' : `filter${index}`,
        file: index === 0 ? 'top' : `filter${index - 1}`,
        ...(driver === 'throttle' ? { 'throttle-group': 'g' } : {}),
      });
    }
    await graph.open({
      driver: 'throttle',
      'node-name': 'extra',
      'throttle-group': 'g',
      file: { driver: 'null-co', size: SIZE },
    });
    for (const node of [this.find('head'), this.find('top')]) {
      if (node === null) throw new Error('the graph is there');
      this.users.push(
        await graph.attach(node, 'guest', {
          taken: Permission.consistentRead | Permission.write,
          shared: Permission.all & ~Permission.resize,
        }),
      );
    }
    this.expected = await readAll(graph.require('top'));
  }

  find(name: string): Node | null {
    return this.graph.find(name === 'head' && this.shape.filters.length === 0 ? 'top' : name);
  }

  /** For the report of a hang. */
  pending(): string {
    const jobs = this.started.map((job) => `${job.id} ${job.status}`);
    const nodes = [...this.graph.nodes].map(({ name, inFlight }) => `${name}:${inFlight}`);
    return [...jobs, `${this.sections.length} sections`, ...this.waiting, ...nodes].join(', ');
  }

  /** Each user has clusters of its own, and each write its place. */
  nextOffset(user: number): number {
    const slot = this.#slot;
    this.#slot += 1;
    const cluster = 2 * (slot % 16) + user;
    return cluster * CLUSTER + Math.floor(slot / 16) * SLOT;
  }

  expectQuiet(): void {
    for (const { nodes } of this.sections) {
      const above = new Set<Node>(nodes);
      for (const node of above) {
        for (const { parent } of node.parents) {
          if (parent.node !== null) above.add(parent.node);
          else if (parent.busy?.() === true) throw new Error(`${parent.description} runs`);
        }
      }
    }
  }
}

async function request(world: World, user: number, kind: 'write' | 'read' | 'flush') {
  const backend = world.users[user];
  if (backend === undefined) throw new Error('no such user');
  const offset = world.nextOffset(user);
  const bytes = new Uint8Array(SLOT).fill(1 + ((offset / SLOT) % 250));
  try {
    if (kind === 'write') {
      await backend.write(offset, bytes);
      world.expected.set(bytes, offset);
    } else if (kind === 'read') {
      await backend.read(offset, bytes);
      expect(firstDifference(bytes, world.expected.subarray(offset, offset + SLOT))).toBe(-1);
    } else {
      await backend.flush();
    }
  } catch (error) {
    // Who has left is refused what was held back; nothing else fails.
    expect([user, (error as BlockError).kind]).toEqual([1, 'closed']);
  }
  world.ended += 1;
}

async function change(world: World, { kind, ...facts }: Step): Promise<void> {
  const { graph, jobs } = world;
  const top = graph.require('top');
  switch (kind) {
    case 'reopen': {
      const detect = (facts as { detect: boolean }).detect ? 'on' : 'off';
      const file = top.children.get('file')?.node.name ?? '';
      await graph.reopen([
        {
          driver: 'qcow2',
          'node-name': 'top',
          file,
          backing: top.backing?.name ?? null,
          discard: 'unmap',
          'detect-zeroes': detect,
        },
      ]);
      return;
    }
    case 'snapshot': {
      const node = world.find((facts as { node: string }).node);
      if (node === null) return;
      requireOperation(node, 'external-snapshot');
      await graph.appendOverlay(node, graph.require('over'));
      return;
    }
    case 'stream':
      world.started.push(await startStream(jobs, { device: 'top', 'job-id': 's' }));
      return;
    case 'backup': {
      const args = { device: 'top', target: 'target', 'job-id': 'b', sync: 'full' } as const;
      world.started.push(await startBackup(jobs, args));
      return;
    }
    case 'del': {
      const extra = world.graph.find('extra');
      if (extra !== null) await graph.close(extra);
      return;
    }
    default: {
      const job = world.started.at(-1);
      if (kind === 'pause') job?.pause();
      else if (kind === 'resume') job?.resume();
      else if (kind === 'speed') job?.setSpeed(200_000);
      else await job?.cancel();
    }
  }
}

async function act(world: World, todo: Step): Promise<void> {
  switch (todo.kind) {
    case 'write':
    case 'read':
    case 'flush':
      return await request(world, (todo as { user: number }).user, todo.kind);
    case 'begin': {
      const node = world.find((todo as { node: string }).node);
      if (node === null) return;
      const section = await world.graph.drain([node]);
      world.sections.push({ nodes: [node], section });
      world.expectQuiet();
      return;
    }
    case 'end':
      return world.sections.shift()?.section.end();
    case 'detach':
      return await world.users[1]?.detach();
    default:
      await world.commands.run(() => change(world, todo)).catch((error: unknown) => {
        if (!(error instanceof BlockError)) throw error;
      });
  }
}

/** Lets time go on until `work` has ended, in a bounded number of turns. */
async function drive(world: World, work: Promise<unknown>, each: () => void): Promise<void> {
  let ended = false;
  const watched = work.finally(() => (ended = true));
  watched.catch(() => undefined);
  for (let turn = 0; !ended; turn += 1) {
    if (turn > MOST_TURNS) throw new Error(`hangs: ${world.pending()}`);
    each();
    await new Promise((resolve) => setImmediate(resolve));
    world.clock.advanceToNext();
  }
  await watched;
}

async function finish(world: World): Promise<void> {
  for (const job of world.started) {
    try {
      job.setSpeed(0);
      job.resume();
    } catch (error) {
      expect(error).toBeInstanceOf(BlockError);
    }
  }
  await Promise.all(world.started.map((job) => job.ended));
  await Promise.all(world.sideWork);
}

describe('drained sections', () => {
  // Loading code takes real time.
  beforeAll(async () => void (await Promise.all(LOADED.map((name) => DRIVER_LOADERS[name]()))));

  it('keep everyone out while they last, and nothing is lost or hangs', async () => {
    const shape = fc.record({
      seed: fc.nat(),
      filters: fc.array(fc.constantFrom('throttle' as const, 'copy-on-read' as const), {
        maxLength: 2,
      }),
      drainsOnEvents: fc.boolean(),
    });
    const steps = fc.array(step, { minLength: 4, maxLength: 24 });
    await fc.assert(
      fc.asyncProperty(shape, steps, fc.scheduler(), async (given, todo, scheduler) => {
        const world = new World(given);
        await drive(world, world.build(), () => undefined);
        const tasks = todo.map(async (each, index) => {
          const label = `${index} ${each.kind}`;
          await scheduler.schedule(Promise.resolve(), label);
          world.waiting.add(label);
          await act(world, each);
          world.waiting.delete(label);
        });
        let idle = 0;
        await drive(world, scheduler.waitFor(Promise.all(tasks)), () => {
          world.expectQuiet();
          idle = scheduler.count() > 0 ? 0 : idle + 1;
          // All steps have begun: what still waits waits for the ends of sections.
          if (idle % 20 === 19) world.sections.shift()?.section.end();
        });
        for (const { section } of world.sections.splice(0)) section.end();
        await drive(world, finish(world), () => undefined);
        const requests = todo.filter(({ kind }) => ['write', 'read', 'flush'].includes(kind));
        expect(world.ended).toBe(requests.length);
        await drive(world, request(world, 0, 'write'), () => undefined);
        const seen = new Uint8Array(SIZE);
        await drive(world, Promise.resolve(world.users[0]?.read(0, seen)), () => undefined);
        expect(firstDifference(seen, world.expected)).toBe(-1);
        for (const user of world.users) await drive(world, user.detach(), () => undefined);
        await drive(world, world.graph.closeAll(), () => undefined);
        expect([...world.graph.nodes]).toEqual([]);
        expect(world.clock.pendingTimers).toBe(0);
      }),
      { numRuns: Number(process.env['DRAIN_RUNS'] ?? runs(25, 300)) },
    );
  }, 120_000);
});
