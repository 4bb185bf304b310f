// SPDX-License-Identifier: Apache-2.0
// A transaction is one moment for a guest that writes all the time: what its backup has not got is
// dirty in the bitmap that it cleared, whichever of the two came first.

import fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import { bitmapsOf } from '../../src/block/index.js';
import { FaultStage } from '../helpers/fault-stage.js';
import type { Arguments } from '../helpers/fault-stage.js';
import { READ_WRITE } from '../helpers/graph.js';
import { readAll } from '../helpers/job-stage.js';

const SIZE = 2 ** 18;
const qcow2 = (name: string): Arguments => ({
  driver: 'qcow2',
  'node-name': name,
  backing: null,
  file: { driver: 'file', filename: `/${name}` },
});

interface Plan {
  readonly clearFirst: boolean;
  readonly writes: readonly (readonly [offset: number, length: number])[];
  readonly before: number;
}

async function play({ clearFirst, writes, before }: Plan): Promise<void> {
  const stage = new FaultStage();
  await stage.start(
    [
      ['blockdev-add', qcow2('top')],
      ['blockdev-add', qcow2('other')],
      ['blockdev-add', { driver: 'file', 'node-name': 'disk', filename: '/disk' }],
      ['blockdev-add', { driver: 'file', 'node-name': 'log', filename: '/log' }],
      ['block-dirty-bitmap-add', { node: 'top', name: 'b', granularity: 512 }],
    ],
    null,
  );
  const { graph } = stage;
  const user = await graph.attach(graph.require('top'), 'guest', READ_WRITE);
  try {
    const backup = { 'job-id': 'j', device: 'top', target: 'other', sync: 'full' };
    const another = { 'job-id': 'k', device: 'disk', target: 'log', sync: 'full' };
    const actions = [
      { type: 'blockdev-backup', data: backup },
      { type: 'blockdev-backup', data: another },
      { type: 'block-dirty-bitmap-clear', data: { node: 'top', name: 'b' } },
    ];
    if (clearFirst) actions.reverse();
    let number = 0;
    const write = async (offset: number, length: number): Promise<void> => {
      number += 1;
      await user.write(offset, new Uint8Array(length).fill(number));
    };
    const running = writes.slice(0, before).map(([offset, length]) => write(offset, length));
    const done = stage.run(['transaction', { actions }]);
    for (const [offset, length] of writes.slice(before)) {
      for (let turn = 0; turn < 5; turn += 1) await Promise.resolve();
      running.push(write(offset, length));
    }
    await Promise.all(running);
    await done;
    await stage.engine.jobs.get('j')?.ended;
    const [now, copy] = [await readAll(user.node), await readAll(graph.require('other'))];
    const bitmap = bitmapsOf(graph.require('top'))[0];
    for (let at = 0; at < SIZE; at += 1) {
      if (now[at] === copy[at] || bitmap?.isDirty(at) === true) continue;
      expect.fail(`byte ${at} is neither in the backup nor dirty`);
    }
  } finally {
    await user.detach();
    await stage.end();
  }
}

describe('a transaction', () => {
  it('is one moment for a guest', async () => {
    const write = fc.tuple(fc.nat(SIZE - 10_000), fc.integer({ min: 1, max: 10_000 }));
    await fc.assert(
      fc.asyncProperty(
        fc.record({
          clearFirst: fc.boolean(),
          writes: fc.array(write, { minLength: 4, maxLength: 30 }),
          before: fc.nat(10),
        }),
        play,
      ),
      { numRuns: 60 },
    );
  }, 60_000);
});
