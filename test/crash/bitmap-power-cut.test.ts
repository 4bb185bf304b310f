// SPDX-License-Identifier: Apache-2.0
// Persistent bitmaps, the power cut at every write: what is left checks without an error, and a
// bitmap that is trusted says nothing too little: every byte that is not what it was when the
// bitmap was last stored is dirty in it. The others are marked, or not there.

import { describe, expect, it } from 'vitest';

import { BlockError, SeededRandom } from '../../src/base/index.js';
import type { JsonObject } from '../../src/base/index.js';
import { bitmapsOf, writeRequest } from '../../src/block/index.js';
import type { Node } from '../../src/block/index.js';
import { createEngine } from '../../src/engine/index.js';
import type { Engine } from '../../src/engine/index.js';
import { CrashDisk } from '../../src/host/index.js';
import type { MemoryHost } from '../../src/host/index.js';
import { runCommand } from '../../src/qmp/dispatch.js';
import { pattern, READ_WRITE } from '../helpers/graph.js';
import { makeGraph, readAll } from '../helpers/job-stage.js';
import { checkOn } from '../helpers/qcow2-check.js';
import { createOn } from '../helpers/qcow2-create.js';
import { forEachSeed } from '../helpers/seeds.js';

const SIZE = 128 * 1024;
const CLUSTER = 4096;
const UNIT = 4096;
const SUBSETS = 2;

type Arguments = Readonly<Record<string, unknown>>;
/** A command, or a guest's write of so many units at a unit. */
type Step = readonly [name: string, args: Arguments] | readonly [at: number, count: number];
/** Goes before a write: a reopen to read-only, refused for the guest that writes. */
const REFUSED = 1000;

const file: Arguments = { driver: 'file', filename: '/image' };
const image: Arguments = { driver: 'qcow2', 'node-name': 'n', file };
const named = (name: string): Arguments => ({ node: 'n', name });
const add: Step = ['blockdev-add', image];
const close: Step = ['blockdev-del', { 'node-name': 'n' }];
const addBitmap = (name: string, more: Arguments = {}): Step => [
  'block-dirty-bitmap-add',
  { ...named(name), persistent: true, granularity: UNIT, ...more },
];
const reopen = (readOnly: boolean): Step => [
  'blockdev-reopen',
  { options: [{ ...image, 'read-only': readOnly }] },
];

/** Ends with the image closed. Before `steps` a bitmap `a` is stored that says units 0 and 1. */
const CASES: Readonly<Record<string, readonly Step[]>> = {
  'guest writes': [add, [4, 3], [9, 1], [4, 1], close],
  'one more bitmap': [add, addBitmap('b'), [20, 2], close, add, [22, 1], close],
  'a bitmap removed': [add, [7, 1], ['block-dirty-bitmap-remove', named('a')], [8, 1], close],
  'one of two removed': [
    add,
    addBitmap('b'),
    close,
    add,
    ['block-dirty-bitmap-remove', named('a')],
    [8, 1],
    close,
  ],
  'bitmaps merged': [
    add,
    addBitmap('b'),
    [12, 2],
    ['block-dirty-bitmap-merge', { node: 'n', target: 'b', bitmaps: ['a'] }],
    close,
  ],
  'reopens to read-only and back': [add, [5, 1], reopen(true), reopen(false), [6, 1], close],
  'a reopen that is refused': [add, [REFUSED + 5, 1], [9, 1], close],
  'a resize': [add, ['block_resize', { 'node-name': 'n', size: SIZE * 2 }], [30, 4], close],
};

class Stage {
  readonly disk: CrashDisk;
  readonly cuts: MemoryHost[] = [];
  readonly #random: SeededRandom;
  /** The guest's view as it was when everything was last stored. */
  base = new Uint8Array(0);
  #engine!: Engine;
  #tag = 1;

  constructor(seed: number) {
    this.disk = new CrashDisk({ seed });
    this.#random = new SeededRandom(seed);
  }

  async start(options: Arguments): Promise<void> {
    await createOn(this.disk, '/image', { size: SIZE, 'cluster-size': CLUSTER, ...options });
    this.#engine = await createEngine({ host: this.disk, lanes: 0 });
    await this.run(add);
    this.base = new Uint8Array(await readAll(this.#engine.graph.require('n')));
    await this.run(addBitmap('a'));
    await this.run([0, 2]);
    await this.run(close);
    this.disk.onWrite = () => {
      for (let subset = 0; subset < SUBSETS; subset += 1) {
        this.cuts.push(this.disk.afterPowerLoss(this.#random));
      }
    };
  }

  async run([first, second]: Step): Promise<void> {
    if (typeof first === 'string') {
      const args = Object.assign(Object.create(null) as JsonObject, second);
      await runCommand(this.#engine, { command: first, args, outOfBand: false });
      return;
    }
    const node = this.#engine.graph.require('n');
    const user = await this.#engine.graph.attach(node, 'guest', READ_WRITE);
    if (first >= REFUSED) await expect(this.run(reopen(true))).rejects.toThrow();
    this.#tag += 1;
    const bytes = pattern(Number(second) * UNIT, this.#tag);
    await node.write(writeRequest((first % REFUSED) * UNIT, bytes));
    await node.flush();
    await user.detach();
  }

  /** A reopen to read-only within which one sync fails; gives whether it failed by that. */
  async failReopen(nth: number): Promise<boolean> {
    const below = this.#engine.graph.require('n').children.get('file')?.node as Node;
    const flush = below.flush.bind(below);
    let left = nth;
    below.flush = () => {
      left -= 1;
      return left === 0 ? Promise.reject(new BlockError('io', 'flush failed')) : flush();
    };
    const failure = await this.run(reopen(true)).catch((error: unknown) => error);
    below.flush = flush;
    return failure !== undefined;
  }
}

/** Bytes that differ from `base` and are clean in a bitmap that is trusted and records. */
function untold(node: Node, view: Uint8Array, base: Uint8Array): string[] {
  const found: string[] = [];
  for (const bitmap of bitmapsOf(node)) {
    if (bitmap.inconsistent || bitmap.name !== 'a') continue;
    for (let offset = 0; offset < base.length; offset += UNIT) {
      const [now, then] = [view, base].map((bytes) => bytes.subarray(offset, offset + UNIT));
      if (now === undefined || then === undefined || Buffer.compare(now, then) === 0) continue;
      if (!bitmap.isDirty(offset)) found.push(`${bitmap.name} at unit ${offset / UNIT}`);
    }
  }
  return found;
}

async function judge(host: MemoryHost, base: Uint8Array): Promise<void> {
  const result = await checkOn(host, '/image');
  expect(result, result.messages.join('; ')).toMatchObject({ corruptions: 0, checkErrors: 0 });
  const graph = makeGraph(host);
  try {
    const node = await graph.open({ ...image, 'read-only': true, driver: 'qcow2' });
    expect(untold(node, new Uint8Array(await readAll(node)), base)).toEqual([]);
  } finally {
    await graph.closeAll();
  }
}

describe('a power cut at any write never leaves a bitmap that says too little', () => {
  for (const [title, steps] of Object.entries(CASES)) {
    it(title, () =>
      forEachSeed(2, async (seed) => {
        const options = seed % 2 === 0 ? {} : { 'refcount-bits': 1 };
        const stage = new Stage(seed);
        await stage.start(options);
        for (const step of steps) {
          await stage.run(step);
          for (const cut of stage.cuts.splice(0)) await judge(cut, stage.base);
        }
        const left = await checkOn(stage.disk, '/image');
        expect(left).toMatchObject({ corruptions: 0, leaks: 0 });
      }),
    );
  }

  it('a reopen to read-only that fails to sync once, and a write after it', async () => {
    for (let nth = 1; ; nth += 1) {
      const stage = new Stage(nth);
      await stage.start({});
      await stage.run(add);
      await stage.run([4, 3]);
      if (!(await stage.failReopen(nth))) break;
      await stage.run([9, 1]);
      await judge(stage.disk.durable(), stage.base);
      for (const cut of stage.cuts.splice(0)) await judge(cut, stage.base);
      await stage.run(close);
      await judge(stage.disk, stage.base);
    }
  });
});
