// SPDX-License-Identifier: Apache-2.0
// A dirty bitmap may say too much, never too little: what reads otherwise than when it was cleared
// is dirty, whatever a guest writes, through whatever lies above, whatever becomes of the nodes.

import { setImmediate } from 'node:timers/promises';

import fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import { BlockError } from '../../src/base/index.js';
import { bitmapsOf, type Backend, type DirtyBitmap, type Node } from '../../src/block/index.js';
import type { HostOperation } from '../../src/host/index.js';
import { FaultStage } from '../helpers/fault-stage.js';
import type { Arguments, Command } from '../helpers/fault-stage.js';
import { READ_WRITE } from '../helpers/graph.js';
import { readAll } from '../helpers/job-stage.js';
import { runs } from '../helpers/seeds.js';

const SIZE = 2 ** 18;
const NODES = ['guest', 'top', 'raw', 'file'] as const;
const BITMAPS = ['a', 'b'] as const;
const FAILING: readonly HostOperation[] = ['write', 'read', 'write-zeroes', 'discard', 'truncate'];

type Step =
  | { readonly kind: 'write' | 'zero' | 'discard'; readonly at: number; readonly most: number }
  | { readonly kind: 'resize'; readonly size: number }
  | { readonly kind: 'fault'; readonly operation: HostOperation; readonly nth: number }
  | { readonly kind: 'command'; readonly command: Command };

const node = fc.constantFrom(...NODES);
const named = fc.record({ node, name: fc.constantFrom(...BITMAPS) });

function command(name: string, args: fc.Arbitrary<Arguments>): fc.Arbitrary<Step> {
  return args.map((each) => ({ kind: 'command', command: [name, each] as const }));
}

const top = { driver: 'qcow2', 'node-name': 'top', file: 'file', backing: 'base' };
const transaction = (...actions: readonly Arguments[]): Step => ({
  kind: 'command',
  command: ['transaction', { actions }],
});
const backup = { device: 'top', target: 'other', sync: 'full', 'job-id': 'j' };

const steps: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 8,
    arbitrary: fc.record({
      kind: fc.constantFrom('write' as const, 'zero' as const, 'discard' as const),
      at: fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }),
      most: fc.constantFrom(1, 100, 512, 10_000, SIZE),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.constantFrom(512, 4096, 100_352, SIZE, 2 * SIZE).map((size) => ({
      kind: 'resize' as const,
      size,
    })),
  },
  {
    weight: 4,
    arbitrary: fc.record({
      kind: fc.constant('fault' as const),
      operation: fc.constantFrom(...FAILING),
      nth: fc.integer({ min: 1, max: 6 }),
    }),
  },
  command('block-dirty-bitmap-clear', named),
  command('block-dirty-bitmap-enable', named),
  command('block-dirty-bitmap-disable', named),
  command(
    'block-dirty-bitmap-merge',
    fc.record({
      node,
      target: fc.constantFrom(...BITMAPS),
      bitmaps: fc.array(fc.oneof(fc.constantFrom(...BITMAPS), named), { minLength: 1 }),
    }),
  ),
  command('blockdev-reopen', fc.boolean().map((flush) => ({
    options: [{ ...top, discard: 'unmap', cache: { 'no-flush': flush } }],
  }))),
  command('block-stream', fc.constant({ device: 'top', 'job-id': 'k' })),
  named.map((bitmap) =>
    transaction(
      { type: 'blockdev-backup', data: backup },
      { type: 'block-dirty-bitmap-clear', data: bitmap },
      { type: 'abort', data: {} },
    ),
  ),
  named.map((bitmap) =>
    transaction(
      { type: 'block-dirty-bitmap-clear', data: bitmap },
      { type: 'blockdev-backup', data: backup },
    ),
  ),
);

/** What a bitmap must at least say. */
class Pledge {
  before: Uint8Array | null = null;
  constructor(
    readonly node: Node,
    readonly bitmap: DirtyBitmap,
  ) {}

  /** Everything is clean, and writes are recorded from now on. */
  async start(): Promise<void> {
    this.before = this.bitmap.enabled ? await readAll(this.node) : null;
  }

  async check(): Promise<void> {
    if (this.before === null) return;
    const now = await readAll(this.node);
    const length = Math.min(now.length, this.before.length);
    const { granularity, name } = this.bitmap;
    for (let offset = 0; offset < length; offset += granularity) {
      const end = Math.min(length, offset + granularity);
      if (Buffer.compare(now.subarray(offset, end), this.before.subarray(offset, end)) === 0) {
        continue;
      }
      if (this.bitmap.isDirty(offset)) continue;
      const where = `a byte of ${this.node.name} from ${offset} on`;
      expect.fail(`${where} changed and is clean in '${name ?? ''}'`);
    }
  }
}

class Stage extends FaultStage {
  readonly pledges: Pledge[] = [];
  user!: Backend;
  #seed = 0;

  async build(): Promise<void> {
    const file = { driver: 'file', 'node-name': 'file', filename: '/top', discard: 'unmap' };
    const raw = { driver: 'raw', 'node-name': 'raw', file: 'top', discard: 'unmap' };
    const setup: readonly Command[] = [
      ['object-add', { 'qom-type': 'throttle-group', id: 'g' }],
      ['blockdev-add', { driver: 'qcow2', 'node-name': 'base', 'read-only': true,
        file: { driver: 'file', filename: '/base' } }],
      ['blockdev-add', { driver: 'qcow2', 'node-name': 'other', backing: null,
        file: { driver: 'file', filename: '/other' } }],
      ['blockdev-add', file],
      ['blockdev-add', { ...top, discard: 'unmap' }],
      ['blockdev-add', raw],
      ['blockdev-add', { driver: 'throttle', 'node-name': 'guest', 'throttle-group': 'g',
        file: 'raw', discard: 'unmap' }],
    ];
    await this.start(setup, null);
    this.user = await this.graph.attach(this.graph.require('guest'), 'guest', READ_WRITE);
    await this.user.write(0, new Uint8Array(SIZE).fill(7));
    for (const name of NODES) {
      await this.run(['block-dirty-bitmap-add', { node: name, name: 'a', granularity: 512 }]);
      await this.run(['block-dirty-bitmap-add', { node: name, name: 'b' }]);
      const found = this.graph.require(name);
      for (const bitmap of bitmapsOf(found)) this.pledges.push(new Pledge(found, bitmap));
    }
    for (const each of this.pledges) await each.start();
  }

  /** Bits are set when a write has ended: what runs on its own ends first. */
  async check(): Promise<void> {
    const nodes = [...this.graph.nodes];
    const section = await this.graph.drain(nodes);
    try {
      while (nodes.some(({ inFlight }) => inFlight > 0)) await setImmediate();
      for (const each of this.pledges) await each.check();
    } finally {
      section.end();
    }
  }

  async play(step: Step): Promise<void> {
    if (step.kind === 'fault') {
      const { operation, nth } = step;
      return this.host.faults.add({ operation, nth, errno: 'EIO' });
    }
    try {
      await this.#act(step);
    } catch (error) {
      // Refusals and faults are welcome: they must change nothing that was promised.
      expect(error).toBeInstanceOf(BlockError);
    }
    this.host.faults.clear();
  }

  async #act(step: Exclude<Step, { kind: 'fault' }>): Promise<void> {
    if (step.kind === 'command') return await this.#command(step.command);
    if (step.kind === 'resize') {
      return await this.#command(['block_resize', { 'node-name': 'guest', size: step.size }]);
    }
    const size = this.user.node.length;
    const offset = Math.floor(step.at * size);
    const length = Math.min(step.most, size - offset);
    this.#seed = (this.#seed + 1) % 256;
    if (step.kind === 'zero') await this.user.writeZeroes(offset, length);
    else if (step.kind === 'discard') await this.user.discard(offset, length);
    else await this.user.write(offset, new Uint8Array(length).fill(this.#seed));
  }

  async #command(command: Command): Promise<void> {
    await this.run(command);
    // What follows looks at the nodes, which no fault is meant for.
    this.host.faults.clear();
    const [name, args] = command;
    for (const each of this.pledges) {
      const isMeant = each.node.name === args['node'] && each.bitmap.name === args['name'];
      const isCleared =
        isMeant && name === 'block-dirty-bitmap-clear' && each.bitmap.enabled;
      if (isCleared || clearsIn(args, each)) await each.start();
      else if (isMeant && name === 'block-dirty-bitmap-disable') each.before = null;
    }
  }
}

function clearsIn(args: Arguments, { node: { name }, bitmap }: Pledge): boolean {
  const actions = (args['actions'] ?? []) as readonly { readonly data: Arguments }[];
  return actions.some(({ data }) => data['node'] === name && data['name'] === bitmap.name);
}

describe('a dirty bitmap', () => {
  it('never says too little', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(steps, { minLength: 3, maxLength: 16 }), async (list) => {
        const stage = new Stage();
        try {
          await stage.build();
          for (const step of list) {
            await stage.play(step);
            if (step.kind !== 'fault') await stage.check();
          }
        } finally {
          await stage.user.detach().catch(() => undefined);
          await stage.end();
        }
      }),
      { numRuns: runs(10, 100) },
    );
  }, 120_000);
});
