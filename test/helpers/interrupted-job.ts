// SPDX-License-Identifier: Apache-2.0
// One life of a job on a simulated host, interrupted at one of its awaits, with a guest that goes
// on writing: the job ends whatever comes, and then everything that may be expected is looked at.
//
// A moment is a number of promise continuations since the command that starts the job, so each
// await of a life can be met. A run depends on its seed alone.
import { promiseHooks } from 'node:v8';
import { expect } from 'vitest';
import { BlockError, ManualClock, SeededRandom } from '../../src/base/index.js';
import type { JsonObject, Random } from '../../src/base/index.js';
import { addBitmap, findBitmap, operationRefusal, shownBitmapsOf } from '../../src/block/index.js';
import type { Node } from '../../src/block/index.js';
import { skipFilters } from '../../src/block/copy/index.js';
import { DRIVER_LOADERS } from '../../src/engine/catalog.js';
import { createEngine } from '../../src/engine/index.js';
import type { Engine } from '../../src/engine/index.js';
import { MemoryHost } from '../../src/host/index.js';
import { runCommand } from '../../src/qmp/dispatch.js';
import type { Arguments, BackupCase, Command, JobCase } from './job-cases.js';
import {
  createImage,
  makeChain,
  makeStage,
  openImage,
  readAll,
  scribble,
  turns,
} from './job-stage.js';
import { brokenAt, SECTOR, WatchedGuest } from './watched-guest.js';
import { bystander, expectWreck, inspect, unmarked } from './wreck.js';
import type { Wreck } from './wreck.js';

const SIZE = 3 * 2 ** 17;
const CLUSTERS = [65_536, 4096, 16_384];
const STUCK_AFTER_TURNS = 1500;
const GUEST_ACTS = 40;
/** Turns after the interruption when what it holds up goes on. */
const AFTER = { sections: 3, faults: 8, pauses: 12 } as const;

/** The files of every scene; `target` and `target2` are copies of top and other. */
const template = makeTemplate();

async function makeTemplate(): Promise<ReadonlyMap<string, Uint8Array>> {
  // Modules come from the disk, which takes time of another kind than what is counted here.
  await Promise.all(Object.values(DRIVER_LOADERS).map((load) => load()));
  const stage = makeStage({ host: new MemoryHost() });
  const { graph, host } = stage;
  await makeChain(stage, { seed: 5, size: SIZE, clusterSizes: CLUSTERS, scribbles: 3 });
  await createImage(stage, { name: 'other', size: SIZE });
  await scribble(stage, await openImage(stage, 'other'), { seed: 9, count: 3 });
  for (const [name, of] of [['target', 'top'], ['target2', 'other']] as const) {
    await createImage(stage, { name, size: SIZE });
    const node = await openImage(stage, name);
    const writer = await graph.attach(node, 'writer', { taken: 3, shared: 31 });
    await writer.write(0, await readAll(graph.require(of)));
    await writer.detach();
  }
  host.putFile('blank', new Uint8Array(0));
  await graph.closeAll();
  return new Map(host.paths().map((path) => [path, host.fileContents(path)]));
}

export interface Moment {
  /** Continuations before it comes; Infinity: never. */
  readonly at: number;
  readonly seed: number;
}

export class InterruptedJob {
  readonly engine: Engine;
  readonly host: MemoryHost;
  readonly guest: WatchedGuest;
  readonly random: SeededRandom;
  readonly trace: string[] = [];
  readonly #clock: ManualClock;
  readonly #kind: JobCase;
  /** Those there are before the job. */
  readonly #nodes: ReadonlySet<Node>;
  /** What the bitmaps' nodes read when the bitmaps began. */
  readonly #origins = new Map<string, Uint8Array>();
  /** What is under way, by what it is. */
  readonly #running = new Map<Promise<unknown>, string>();
  readonly #held: (() => void)[] = [];
  readonly #manual: { readonly finalize: boolean; readonly dismiss: boolean };
  #startError: BlockError | null = null;
  #wreck: Wreck | null = null;
  #interruptedAt = Infinity;
  #closing = false;
  faulty = false;

  private constructor(
    kind: JobCase,
    facts: { engine: Engine; host: MemoryHost; guest: WatchedGuest; random: SeededRandom },
  ) {
    this.#kind = kind;
    this.#nodes = new Set(facts.engine.graph.nodes);
    this.engine = facts.engine;
    this.host = facts.host;
    this.guest = facts.guest;
    this.random = facts.random;
    this.#clock = facts.host.clock as ManualClock;
    const { random } = facts;
    this.#manual = { finalize: random.chance(0.4), dismiss: random.chance(0.4) };
    facts.engine.events.subscribe(({ name, data }) => {
      const told = name === 'JOB_STATUS_CHANGE' ? `JSC ${String(data['status'])}` : name;
      this.trace.push(`${told} ${subjectOf(data)}`);
    });
  }

  static async prepare(kind: JobCase, seed: number): Promise<InterruptedJob> {
    const clock = new ManualClock();
    const host = new MemoryHost({ seed, clock });
    for (const [path, bytes] of await template) host.putFile(path, bytes);
    const engine = await createEngine({ host, lanes: 0 });
    await openAll(engine);
    const { graph } = engine;
    const random = new SeededRandom(seed);
    const guest = await WatchedGuest.attach(graph, graph.require('top'));
    const life = new InterruptedJob(kind, { engine, host, guest, random });
    for (const name of ['top', 'other']) {
      const node = graph.require(name);
      life.#origins.set(name, await readAll(node));
      addBitmap(node, { name: 'all', granularity: SECTOR });
      addBitmap(node, { name: 'used', granularity: 4096 });
    }
    for (let count = 0; count < 4; count += 1) await guest.act(random);
    return life;
  }

  /** Sends a command; what comes too late is refused, and that is all. */
  send([command, args]: Command): void {
    const sent = this.#run([command, args]).catch((error: unknown) => {
      if (!(error instanceof BlockError)) throw error;
    });
    this.#track(sent, command);
  }

  /** Holds a node drained for some turns. */
  hold(name: string): void {
    const node = this.engine.graph.find(name);
    if (node === null) return;
    const begun = this.engine.graph.drain([node]).then((section) => {
      this.#held.push(() => section.end());
    });
    this.#track(begun, `drain of ${name}`);
  }

  guestActs(): void {
    if (!this.#closing) this.#track(this.guest.act(this.random), 'guest');
  }

  /** The files as they are this moment, as SIGKILL leaves them. */
  kill(): void {
    const node = skipFilters(this.guest.backend.node);
    const host = bystander(this.host);
    this.#wreck = { host, file: node.filename, promised: this.guest.kept };
  }

  /** All jobs are told to end, as on the way out of the program. */
  quit(): void {
    this.#track(this.engine.exclusive(() => this.engine.jobs.cancelAll()), 'quit');
  }

  /** Lives through it all; gives the number of continuations it took. */
  async live(moment: Moment, extra: Arguments, act: (life: this) => void): Promise<number> {
    const ends = this.#kind.blockJob
      ? { 'auto-finalize': !this.#manual.finalize, 'auto-dismiss': !this.#manual.dismiss }
      : {};
    let count = 0;
    let turn = 0;
    const stop = promiseHooks.onBefore(() => {
      count += 1;
      if (count !== moment.at) return;
      this.#interruptedAt = turn;
      act(this);
    });
    try {
      const started = this.#run(this.#kind.start({ ...extra, ...ends })).catch((error) => {
        if (!(error instanceof BlockError)) throw error;
        this.#startError = error;
      });
      this.#track(started, 'start');
      for (; this.#isAlive(); turn += 1) {
        if (turn > STUCK_AFTER_TURNS) throw this.#stuck();
        this.#nudge(turn);
        this.#clock.advance(100);
        await turns(1);
      }
    } finally {
      stop();
    }
    if (this.#startError !== null && !this.faulty) throw this.#startError;
    return count;
  }

  /** Everything that must be true when the job is gone. */
  async expectAllWell(): Promise<void> {
    this.host.faults.clear();
    this.#expectNothingLeft();
    const { guest } = this;
    if (!this.faulty) expect(guest.failures, 'requests of the guest').toEqual([]);
    if (this.#kind.endless === true && this.#hasMoved) return;
    expect(brokenAt(guest.view, await readAll(guest.backend.node)), 'the view').toBe(-1);
    await this.#expectBitmapsKnow();
    await guest.flush();
    if (this.#wreck !== null) await expectWreck(this.#wreck, 'killed');
    const file = skipFilters(guest.backend.node).filename;
    const last = { host: bystander(this.host), file, promised: guest.kept };
    await expectWreck(last, 'at the end');
    await guest.backend.detach();
    await this.#close();
    expect([...this.engine.graph.nodes].map(({ name }) => name)).toEqual([]);
    expect(this.#clock.pendingTimers, 'timers').toBe(0);
  }

  /** A flush that has failed once goes on failing. */
  async #close(): Promise<void> {
    try {
      await this.engine.close();
    } catch (error) {
      if (!(error instanceof BlockError) || !this.faulty) throw error;
    }
  }

  #stuck(): Error {
    const jobs = this.engine.jobs.list().map(({ id, status }) => `${id} is ${status}`);
    const waiting = [...this.#running.values()];
    return new Error(`stuck: ${[...jobs, ...waiting].join(', ')}; ${this.trace.join(', ')}`);
  }

  #run([command, args]: Command): Promise<unknown> {
    const plain = Object.assign(Object.create(null) as JsonObject, args);
    return runCommand(this.engine, { command, args: plain, outOfBand: false });
  }

  #track(work: Promise<unknown>, what: string): void {
    this.#running.set(work, what);
    void work.finally(() => this.#running.delete(work)).catch(() => undefined);
  }

  #isAlive(): boolean {
    return this.#running.size + this.#held.length + this.engine.jobs.list().length > 0;
  }

  /** What guest, user and time do between two turns. */
  #nudge(turn: number): void {
    const since = turn - this.#interruptedAt;
    if (turn < GUEST_ACTS && turn % 2 === 0) this.guestActs();
    if (since > AFTER.faults) this.host.faults.clear();
    if (since > AFTER.sections || turn > 100) for (const end of this.#held.splice(0)) end();
    const patient = since > AFTER.pauses || turn > 100;
    for (const { id, status } of this.engine.jobs.list()) {
      const verb = this.#verbFor(status, turn, patient);
      if (verb !== null) this.send([verb, { id }]);
    }
  }

  #verbFor(status: string, turn: number, patient: boolean): string | null {
    const isDue = turn % 4 === 3;
    if (!isDue) return null;
    if (status === 'concluded') return 'job-dismiss';
    if (status === 'pending') return this.#manual.finalize ? 'job-finalize' : null;
    if ((status === 'paused' || status === 'standby') && patient) return 'job-resume';
    if (this.#kind.endless === true) {
      return turn > 50 && status !== 'aborting' ? 'job-cancel' : null;
    }
    return status === 'ready' && turn > 8 ? 'job-complete' : null;
  }

  /** The guest is on the job's target; one that copies only what comes lacks all else. */
  get #hasMoved(): boolean {
    return skipFilters(this.guest.backend.node).name !== 'top';
  }

  #expectNothingLeft(): void {
    const nodes = [...this.engine.graph.nodes];
    const filters = nodes.filter((node) => node.driver.kind === 'filter');
    expect(filters.map((node) => node.name), 'filters').toEqual([]);
    const guests = skipFilters(this.guest.backend.node);
    const kept = new Set([...this.#nodes, guests, guests.children.get('file')?.node]);
    const others = nodes.filter((node) => !kept.has(node)).map((node) => node.name);
    expect(others, 'nodes left over').toEqual([]);
    for (const name of this.#hasMoved || this.faulty ? [] : ['base', 'mid']) {
      expect(this.engine.graph.require(name).readOnly, `${name} is read-only`).toBe(true);
    }
    expect(this.engine.jobs.list()).toEqual([]);
    for (const node of nodes) {
      const users = [...node.parents].filter(({ parent }) => parent.node === null);
      const strangers = users.filter(({ parent }) => parent.description !== 'guest');
      expect(strangers.map(({ parent }) => parent.description), node.name).toEqual([]);
      const frozen = [...node.children.values()].filter((child) => child.frozenBy !== null);
      expect(frozen, `links of ${node.name}`).toEqual([]);
      expect(operationRefusal(node, 'stream')).toBeNull();
      expect(operationRefusal(node, 'backup-target')).toBeNull();
    }
    for (const name of ['top', 'other']) {
      const node = this.engine.graph.find(name);
      if (node === null) continue;
      const own = [findBitmap(node, 'all'), findBitmap(node, 'used')];
      expect(shownBitmapsOf(node)).toEqual(own);
      expect(own[1]).toMatchObject({ busy: false, enabled: true });
    }
  }

  /** Bitmaps say of everything that has changed, and of everything a copy lacks, that it is so. */
  async #expectBitmapsKnow(): Promise<void> {
    for (const name of ['top', 'other']) {
      const node = this.engine.graph.find(name);
      const origin = this.#origins.get(name);
      if (node === null || origin === undefined) continue;
      // Once the guest is on what was its backing file, that changes below it.
      if (name === 'top' && this.#hasMoved) continue;
      expect(unmarked(node, 'all', await readAll(node), origin), `all of ${name}`).toEqual([]);
    }
    for (const each of this.#kind.backups ?? []) await this.#expectBackup(each);
  }

  async #expectBackup(backup: BackupCase): Promise<void> {
    const { job, device, target, bitmap, mode, fresh } = backup;
    const hasRun = this.trace.includes(`JSC running ${job}`);
    const isDone = this.trace.includes(`BLOCK_JOB_COMPLETED ${job}`) && !this.#failed.has(job);
    const toldOf = isDone ? mode !== 'never' : mode === 'always';
    if (bitmap === null || !hasRun || (fresh && !toldOf)) return;
    const source = this.engine.graph.require(device);
    const copy = await inspect(bystander(this.host), target);
    expect(unmarked(source, bitmap, await readAll(source), copy), `what ${job} lacks`).toEqual([]);
  }

  get #failed(): Set<string> {
    const aborting = this.trace.filter((line) => line.startsWith('JSC aborting '));
    return new Set(aborting.map((line) => line.slice('JSC aborting '.length)));
  }
}

/** The job that an event is about. */
function subjectOf(data: Arguments): string {
  const subject = data['id'] ?? data['device'];
  return typeof subject === 'string' ? subject : '';
}

async function openAll({ graph }: Engine): Promise<void> {
  await openImage({ graph }, 'base', { readOnly: true });
  await openImage({ graph }, 'mid', { backing: 'base', readOnly: true });
  await openImage({ graph }, 'top', { backing: 'mid' });
  for (const name of ['other', 'target', 'target2']) await openImage({ graph }, name);
  await graph.open({ driver: 'file', 'node-name': 'blank', filename: 'blank' });
}

/** A random number of those below `limit`, for actions. */
export function oneOf<T>(random: Random, all: readonly T[]): T {
  return all[random.below(all.length)] as T;
}

/** Continuations in the life of a job that nothing interrupts. */
export async function lengthOfLife(kind: JobCase): Promise<number> {
  const life = await InterruptedJob.prepare(kind, 1);
  const length = await life.live({ at: Infinity, seed: 1 }, {}, () => undefined);
  await life.expectAllWell();
  return length;
}

export interface Interruption extends Moment {
  readonly name: string;
  readonly kind: JobCase;
  readonly title: string;
  readonly action: { readonly policy?: string; act(life: InterruptedJob): void };
}

/** Throws, naming what replays it, when anything is not as it must be. */
export async function playInterruption(one: Interruption): Promise<void> {
  const { kind, action } = one;
  const life = await InterruptedJob.prepare(kind, one.seed);
  const extra = Object.fromEntries(kind.policies.map((key) => [key, action.policy ?? 'report']));
  try {
    await life.live(one, extra, (alive) => action.act(alive));
    await life.expectAllWell();
  } catch (error) {
    if (error instanceof Error) {
      const seed = `${one.name}/${one.title}/${one.at}/${one.seed}`;
      error.message += `\n(replay with BLOCKWRIGHT_SEED='${seed}': ${life.trace.join(', ')})`;
    }
    throw error;
  }
}
