// SPDX-License-Identifier: Apache-2.0
// Random commands on a graph, from a growing pool of names, as a player of a contest.

import type { Random } from '../../src/base/index.js';
import type { GraphCommand, Player } from './graph-contest.js';
import { BitmapSource, JobSource } from './graph-jobs.js';
import { OptionSource } from './graph-options.js';
import type { Options } from './graph-options.js';
import type { GraphState } from './graph-state.js';
import type { Line } from './transcript.js';

const MIB = 2 ** 20;

type Maker = () => GraphCommand;

class CommandSource {
  readonly #random: Random;
  readonly #options: OptionSource;
  readonly #groups: string[] = [];
  readonly #made: string[] = [];
  /** Options of the nodes that were added, for reopening them. */
  readonly #known = new Map<string, Line>();
  readonly #bitmaps: BitmapSource;
  readonly #jobs: JobSource;
  readonly #makers: readonly (readonly [weight: number, make: Maker])[];
  #count = 0;
  #last: GraphCommand | null = null;

  constructor(random: Random) {
    this.#random = random;
    this.#options = new OptionSource(random);
    this.#bitmaps = new BitmapSource(this.#options);
    this.#jobs = new JobSource(this.#options, () => this.#bitmaps.name());
    this.#makers = [
      [30, () => this.#add()],
      [8, () => this.#del()],
      [22, () => this.#reopen()],
      [6, () => this.#snapshot()],
      [5, () => this.#snapshotSync()],
      [4, () => this.#changeBacking()],
      [5, () => this.#resize()],
      [3, () => this.#threshold()],
      [8, () => this.#bitmaps.next(this.#count)],
      [6, () => this.#object()],
      [16, () => this.#jobs.next(this.#count)],
      [5, () => this.#transaction()],
    ];
  }

  next(state: GraphState, accepted: boolean): GraphCommand {
    if (accepted && this.#last !== null) this.#learn(this.#last);
    this.#options.look({ state, groups: this.#groups, made: this.#made });
    this.#count += 1;
    if (state.drivers.size < 6 && this.#options.chance(0.8)) return (this.#last = this.#add());
    const full = state.drivers.size > 40;
    let roll = this.#random.below(this.#makers.reduce((sum, [weight]) => sum + weight, 0));
    let make: Maker = () => this.#del();
    for (const [weight, each] of this.#makers) {
      roll -= weight;
      if (roll >= 0) continue;
      make = each;
      break;
    }
    this.#last = full && this.#options.chance(0.7) ? this.#del() : make();
    return this.#last;
  }

  #learn(command: GraphCommand): void {
    const { execute, arguments: args } = command;
    if (execute === 'transaction') {
      for (const { type, data } of args['actions'] as { type: string; data: Line }[]) {
        this.#learn({ execute: type, arguments: data });
      }
    }
    if (execute === 'blockdev-add') this.#known.set(String(args['node-name']), args);
    if (execute === 'blockdev-del') this.#known.delete(String(args['node-name']));
    if (execute === 'object-add') this.#groups.push(String(args['id']));
    if (execute === 'blockdev-snapshot-sync') {
      this.#made.push(String(args['snapshot-file']).slice('DIR/'.length));
    }
    if (execute === 'blockdev-reopen') {
      for (const each of args['options'] as Line[]) {
        this.#known.set(String(each['node-name']), each);
      }
    }
  }

  #add(): GraphCommand {
    const options = this.#options.node();
    const name = this.#options.chance(0.03) ? this.#options.name() : `n${this.#count}`;
    if (!this.#options.chance(0.01)) options['node-name'] = name;
    if (this.#options.chance(0.25)) this.#nameChild(options);
    if (this.#options.chance(0.01)) options['no-such-option'] = 1;
    return { execute: 'blockdev-add', arguments: options };
  }

  #nameChild(options: Options): void {
    for (const key of ['file', 'backing', 'image', 'target']) {
      const child = options[key];
      if (child === null || typeof child !== 'object') continue;
      (child as Options)['node-name'] = `n${this.#count}${key[0]}`;
      return;
    }
  }

  #del(): GraphCommand {
    return { execute: 'blockdev-del', arguments: { 'node-name': this.#options.unused() } };
  }

  #reopen(): GraphCommand {
    const picked = Array.from({ length: this.#options.oneOf(1, 1, 1, 2, 3) }, () =>
      this.#options.name((_, each) => this.#reopenable(each)));
    const names = this.#options.chance(0.1) ? picked : [...new Set(picked)];
    const options = names.map((name) => {
      const known = this.#known.get(name) ?? { ...this.#options.node(2), 'node-name': name };
      return this.#options.changed(known);
    });
    return { execute: 'blockdev-reopen', arguments: { options } };
  }

  /** The reference stumbles over `force-share` that is given as it was. */
  #reopenable(name: string): boolean {
    const known = this.#known.get(name);
    return known !== undefined && !JSON.stringify(known).includes('force-share');
  }

  #snapshot(): GraphCommand {
    const overlay = this.#options.name((driver, name) =>
      driver === 'qcow2' && this.#known.get(name)?.['backing'] === null);
    const node = this.#options.name((_, name) => name !== overlay);
    return { execute: 'blockdev-snapshot', arguments: { node, overlay } };
  }

  #snapshotSync(): GraphCommand {
    const args: Options = {
      // The reference cuts the name of that driver to what a header holds, which opens nothing.
      'node-name': this.#options.name((driver) => driver !== 'copy-before-write'),
      'snapshot-file': `DIR/new${this.#count}.qcow2`,
    };
    if (!this.#options.chance(0.05)) args['snapshot-node-name'] = `n${this.#count}`;
    if (this.#options.chance(0.2)) args['format'] = this.#options.oneOf('qcow2', 'raw', 'nope');
    if (this.#options.chance(0.3)) args['mode'] = this.#options.oneOf('absolute-paths', 'existing');
    if (args['mode'] === 'existing') {
      args['snapshot-file'] = `DIR/${this.#options.oneOf('spare', 'lazy', 'small', 'leaf')}.qcow2`;
    }
    return { execute: 'blockdev-snapshot-sync', arguments: args };
  }

  #changeBacking(): GraphCommand {
    const device = this.#options.name((driver) => driver === 'qcow2');
    const image = this.#options.chance(0.7) ? device
      : this.#options.name((driver) => driver === 'qcow2');
    const backing = this.#options.oneOf('DIR/base.qcow2', 'DIR/mid.qcow2', 'DIR/plain.raw');
    return {
      execute: 'change-backing-file',
      arguments: { device, 'image-node-name': image, 'backing-file': backing },
    };
  }

  /** Several actions, of which one may start a job. */
  #transaction(): GraphCommand {
    const makers: readonly Maker[] = [
      () => this.#snapshot(),
      () => this.#snapshotSync(),
      () => this.#bitmaps.next(this.#count),
      () => this.#bitmaps.next(this.#count),
      () => this.#jobs.backup(this.#count),
    ];
    const commands = Array.from({ length: this.#options.oneOf(1, 2, 2, 3) }, () =>
      this.#options.oneOf(...makers)());
    const [job, ...more] = commands.filter((command) => command.job !== undefined);
    // The reference dies of bitmaps that are not there, and ends two jobs in any order.
    const chosen = commands.filter((command) =>
      !more.includes(command) && !command.execute.endsWith('able'));
    const actions: Line[] = chosen.map(({ execute: type, arguments: data }) => ({ type, data }));
    if (this.#options.chance(0.15)) actions.push({ type: 'abort', data: {} });
    const args: Options = { actions };
    if (this.#options.chance(0.3)) args['properties'] = { 'completion-mode': 'grouped' };
    const made = { execute: 'transaction', arguments: args };
    return job?.job === undefined ? made : { ...made, job: job.job };
  }

  #resize(): GraphCommand {
    const size = this.#options.oneOf(0, 512, 1000, 65_536, MIB, MIB + 512, 2 * MIB, 3 * MIB);
    // Ours keeps what is cut off for a snapshot, the reference does not.
    const kept = this.#options.has('copy-before-write');
    const args = { 'node-name': this.#options.name(), size: kept ? 3 * MIB : size };
    return { execute: 'block_resize', arguments: args };
  }

  #threshold(): GraphCommand {
    const threshold = this.#options.oneOf(0, 65_536, 10 * MIB);
    const args = { 'node-name': this.#options.name(), 'write-threshold': threshold };
    return { execute: 'block-set-write-threshold', arguments: args };
  }

  #object(): GraphCommand {
    const roll = this.#random.below(10);
    if (this.#groups.length === 0 || roll < 4) {
      const id = this.#groups.length === 0 ? 'g0' : `g${this.#count}`;
      const args: Options = { 'qom-type': 'throttle-group', id };
      if (this.#options.chance(0.5)) args['limits'] = this.#limits();
      return { execute: 'object-add', arguments: args };
    }
    const id = this.#options.group();
    if (roll < 6) return { execute: 'object-del', arguments: { id } };
    const path = `/objects/${id}`;
    if (roll < 8) return { execute: 'qom-get', arguments: { path, property: 'limits' } };
    const value = this.#limits();
    return { execute: 'qom-set', arguments: { path, property: 'limits', value } };
  }

  /** High enough that no job waits for long, or not valid. */
  #limits(): Line {
    return this.#options.oneOf<Line>(
      { 'iops-total': 100_000 },
      { 'bps-total': 2 ** 30, 'bps-total-max': 2 ** 31 },
      { 'bps-read': 2 ** 30, 'iops-write': 50_000, 'iops-size': 4096 },
      { 'bps-total': 1, 'bps-read': 1 },
      { 'iops-total-max': 100 },
      {},
    );
  }
}

/** Plays `length` random commands. */
export function randomPlayer(random: Random, length: number): Player {
  const source = new CommandSource(random);
  let left = length;
  return (state, accepted) => {
    left -= 1;
    return left < 0 ? null : source.next(state, accepted);
  };
}
