// SPDX-License-Identifier: Apache-2.0
// Random options of nodes: mostly sensible, sometimes not.

import type { Random } from '../../src/base/index.js';
import { QCOW2_IMAGES, RAW_IMAGES } from './graph-images.js';
import type { GraphState } from './graph-state.js';
import { pick } from './random-chain.js';
import type { Line } from './transcript.js';

/** What is there to refer to. */
export interface Surroundings {
  readonly state: GraphState;
  readonly groups: readonly string[];
  /** Files that snapshots made. */
  readonly made: readonly string[];
}

export type Options = Record<string, unknown>;

const KIB = 1024;
const MIB = 1024 * KIB;
const FILTERS = ['throttle', 'copy-on-read', 'copy-before-write', 'compress', 'blkdebug',
  'blkverify', 'blklogwrites', 'quorum', 'quorum', 'preallocate', 'snapshot-access'] as const;
const PERMISSIONS = ['consistent-read', 'write', 'write-unchanged', 'resize'];

export class OptionSource {
  readonly #random: Random;
  #around: Surroundings = {
    state: { facts: [], drivers: new Map(), edges: [] }, groups: [], made: [],
  };

  constructor(random: Random) {
    this.#random = random;
  }

  look(around: Surroundings): void {
    this.#around = around;
  }

  oneOf<T>(...choices: readonly T[]): T {
    return pick(this.#random, choices);
  }

  chance(chance: number): boolean {
    return this.#random.chance(chance);
  }

  /** A node that can be named; rarely none. */
  name(wanted?: (driver: string, name: string) => boolean): string {
    const named = [...this.#around.state.drivers]
      .filter(([name]) => !name.includes('.') && !name.startsWith('#'));
    const fitting = named.filter(([name, driver]) => wanted?.(driver, name) ?? true);
    const names = (fitting.length > 0 && !this.chance(0.15) ? fitting : named)
      .map(([name]) => name);
    if (names.length === 0 || this.chance(0.02)) return this.oneOf('nope', '');
    return pick(this.#random, names);
  }

  /** Whether any node is of that driver. */
  has(driver: string): boolean {
    return [...this.#around.state.drivers.values()].includes(driver);
  }

  /** A node that nothing uses. */
  unused(): string {
    const used = new Set(this.#around.state.edges.map(([, , child]) => child));
    return this.name((_, name) => !used.has(name));
  }

  group(): string {
    return this.chance(0.05) ? 'no-group' : this.oneOf(...this.#around.groups, 'g0');
  }

  /** Options of any node. */
  node(depth = 0): Options {
    const roll = this.#random.below(100);
    if (roll < 12) return this.file();
    if (roll < 20) return this.nothing();
    if (roll < 32) return this.raw(depth);
    if (roll < 65 || depth > 2) return this.qcow2(depth);
    return this.filter(depth);
  }

  #image(names: readonly string[]): string {
    return `DIR/${this.chance(0.02) ? 'missing.raw' : this.oneOf(...names)}`;
  }

  file(names?: readonly string[]): Options {
    const choices = names ?? [...QCOW2_IMAGES, ...RAW_IMAGES, ...RAW_IMAGES, ...RAW_IMAGES];
    const options: Options = { driver: 'file', filename: this.#image(choices) };
    if (this.chance(0.1)) options['locking'] = this.oneOf('auto', 'on');
    if (this.chance(0.03)) options['aio'] = 'threads';
    return this.#based(options);
  }

  nothing(): Options {
    const options: Options = { driver: this.oneOf('null-co', 'null-aio') };
    options['size'] = this.oneOf(0, 512, 65_536, MIB, MIB, 2 * MIB, 1000);
    // Whether anything is there without it, the reference answers one way here and another there.
    options['read-zeroes'] = true;
    if (this.chance(0.1)) options['latency-ns'] = this.oneOf(0, 1000);
    return this.#based(options);
  }

  raw(depth: number): Options {
    const file = this.#child(depth, () => this.file(RAW_IMAGES));
    const options: Options = { driver: 'raw', file };
    if (this.chance(0.3)) options['offset'] = this.oneOf(0, 512, 4096, 65_536, 100, 2 * MIB);
    if (this.chance(0.3)) options['size'] = this.oneOf(512, 65_536, MIB, 1000, 2 * MIB);
    return this.#based(options);
  }

  qcow2(depth: number): Options {
    const names = [...QCOW2_IMAGES, ...this.#around.made];
    const file = this.#child(depth, () => this.file(names), 'file');
    const options: Options = { driver: 'qcow2', file };
    const roll = this.#random.below(10);
    if (roll < 3) options['backing'] = null;
    else if (roll < 5) options['backing'] = this.name();
    else if (roll < 7 && depth < 3) options['backing'] = this.node(depth + 1);
    if (this.chance(0.05)) options['lazy-refcounts'] = this.oneOf(true, false);
    return this.#based(options);
  }

  filter(depth: number): Options {
    const driver = this.oneOf(...FILTERS);
    const options: Options = { driver };
    const child = (): unknown => this.#child(depth, () => this.node(depth + 1));
    if (driver === 'blkdebug') options['image'] = child();
    else if (driver === 'blkverify') Object.assign(options, { test: child(), raw: child() });
    else if (driver === 'quorum') this.#quorum(options, child);
    else options['file'] = child();
    if (driver === 'snapshot-access' && this.chance(0.8)) {
      options['file'] = this.name((each) => each === 'copy-before-write');
    }
    if (driver === 'preallocate' && this.chance(0.3)) {
      options['prealloc-size'] = this.oneOf(MIB, 65_536, 1000);
    }
    if (driver === 'throttle') options['throttle-group'] = this.group();
    if (driver === 'copy-on-read' && typeof options['file'] === 'string' && this.chance(0.3)) {
      options['bottom'] = this.#bottom(options['file']);
    }
    if (driver === 'copy-before-write') options['target'] = child();
    if (driver === 'blklogwrites') options['log'] = this.#logChild();
    if (driver === 'blkdebug') this.#blkdebug(options);
    return this.#based(options);
  }

  /** Nodes of the reference that have no size of their own grow with the log. */
  #logChild(): unknown {
    return this.chance(0.5) ? this.name((driver) => driver === 'file') : this.file(RAW_IMAGES);
  }

  /** The reference dies of nodes that are not in the chain. */
  #bottom(file: string): string {
    const below = this.#around.state.edges.find(([parent, edge, child]) =>
      parent === file && edge === 'backing' && !child.includes('.'));
    return below === undefined || this.chance(0.5) ? file : below[2];
  }

  #quorum(options: Options, child: () => unknown): void {
    const count = this.oneOf(1, 2, 2, 3);
    options['children'] = Array.from({ length: count }, child);
    options['vote-threshold'] = this.oneOf(1, 1, count, 2);
    if (this.chance(0.1)) options['read-pattern'] = this.oneOf('fifo', 'quorum');
    if (this.chance(0.1)) options['rewrite-corrupted'] = true;
    if (this.chance(0.1)) options['blkverify'] = true;
  }

  #blkdebug(options: Options): void {
    if (this.chance(0.2)) options['align'] = this.oneOf(512, 4096, 1000);
    if (this.chance(0.1)) options['max-transfer'] = this.oneOf(65_536, 1000);
    if (this.chance(0.15)) options['take-child-perms'] = [this.oneOf(...PERMISSIONS)];
    if (this.chance(0.15)) options['unshare-child-perms'] = [this.oneOf(...PERMISSIONS)];
  }

  #child(depth: number, make: () => Options, driver?: string): unknown {
    const roll = this.#random.below(10);
    if (roll < 4 && this.#around.state.drivers.size > 0) {
      return this.name(driver === undefined ? undefined : (each) => each === driver);
    }
    return roll < 9 || depth > 1 ? make() : this.node(depth + 1);
  }

  #based(options: Options): Options {
    if (this.chance(0.2)) options['read-only'] = this.oneOf(true, true, false);
    if (this.chance(0.12)) options['auto-read-only'] = this.oneOf(true, true, false);
    if (this.chance(0.05)) options['force-share'] = true;
    if (this.chance(0.1)) options['discard'] = this.oneOf('unmap', 'ignore');
    if (this.chance(0.1)) options['detect-zeroes'] = this.oneOf('on', 'unmap', 'off');
    if (this.chance(0.1)) {
      options['cache'] = { [this.oneOf('direct', 'no-flush')]: this.oneOf(true, false) };
    }
    return options;
  }

  /** Options as they were, some left out or changed. */
  changed(before: Line): Options {
    const options: Options = structuredClone(before) as Options;
    for (const key of Object.keys(options)) {
      if (['driver', 'node-name'].includes(key) || !this.chance(0.1)) continue;
      const needed = ['file', 'image', 'test', 'raw', 'children'].includes(key);
      if (!needed || this.chance(0.1)) delete options[key];
    }
    if (this.chance(0.3)) options['read-only'] = this.oneOf(true, false);
    if (this.chance(0.2)) this.#based(options);
    if (options['driver'] === 'qcow2' && this.chance(0.6)) {
      options['backing'] = this.oneOf<unknown>(null, this.name(), this.name(), this.node(2));
    }
    const { backing } = options;
    const named = typeof backing === 'object' && typeof (backing as Options | null)?.['file'];
    if (named === 'string') options['backing'] = null;
    // The reference does not look whether what is put below a format is an image.
    // It looks at a window by the file from before, and shares by whether there was one.
    const windowed = before['offset'] !== undefined || before['size'] !== undefined;
    if (windowed) Object.assign(options, { offset: before['offset'], size: before['size'] });
    const replaceable = options['driver'] !== 'qcow2' && !windowed;
    if ('file' in options && replaceable && this.chance(0.3)) {
      options['file'] = this.oneOf<unknown>(this.name(), this.name(), this.node(2));
    }
    if ('throttle-group' in options && this.chance(0.4)) options['throttle-group'] = this.group();
    if (this.chance(0.02)) options['driver'] = this.oneOf('raw', 'qcow2', 'file');
    return options;
  }
}

export type { Line };
