// SPDX-License-Identifier: Apache-2.0
// Random transactions over a graph with bitmaps and a guest: whatever fails, and wherever, leaves
// everything as it was; what succeeds can be done again in single commands.

import fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import { BlockError } from '../../src/base/index.js';
import { FaultStage } from '../helpers/fault-stage.js';
import type { Arguments, Command } from '../helpers/fault-stage.js';
import { runs } from '../helpers/seeds.js';

const NODES = ['top', 'base', 'other', 'spare', 'disk', 'snap1', 'snap2', 'nowhere'] as const;
const BITMAPS = ['a', 'b', 'c', 'none'] as const;

const node = fc.constantFrom(...NODES);
const likelyNode = fc.oneof({ arbitrary: fc.constantFrom('top', 'disk'), weight: 4 }, node);
const likelyOverlay = fc.oneof({ arbitrary: fc.constant('other'), weight: 4 }, node);
const bitmap = fc.constantFrom(...BITMAPS);
const named = fc.record({ node: likelyNode, name: bitmap });
const granularity = fc.constantFrom(512, 4096, 65_536, 3);

interface Action {
  readonly type: string;
  readonly data: Arguments;
}

function action(type: string, data: fc.Arbitrary<Arguments>): fc.Arbitrary<Action> {
  return data.map((value) => ({ type, data: value }));
}

const merge = fc.record({
  node: likelyNode,
  target: bitmap,
  bitmaps: fc.array(fc.oneof(bitmap, named), { maxLength: 3 }),
});
const oldMerge = fc.record({ node: likelyNode, dst_name: bitmap, src_name: bitmap });
const common = {
  'job-id': fc.constantFrom('j', 'k', ''),
  device: likelyNode,
  speed: fc.constantFrom(1, 65_536),
};
const ordinary = { ...common, sync: fc.constantFrom('full', 'top', 'none') };
const withBitmap = {
  ...common,
  sync: fc.constantFrom('bitmap', 'incremental'),
  bitmap,
  'bitmap-mode': fc.constantFrom('on-success', 'always', 'never'),
};
const backup = fc.oneof(
  fc.record({ ...ordinary, target: likelyOverlay }),
  fc.record({ ...withBitmap, target: likelyOverlay }),
);
const newFile = { target: fc.constantFrom('/copy', '/nowhere/copy'), format: fc.constant('qcow2') };
const driveBackup = fc.oneof(
  fc.record({ ...ordinary, ...newFile }),
  fc.record({ ...withBitmap, ...newFile }),
);
const snapshotSync = fc.record({
  'node-name': likelyNode,
  'snapshot-file': fc.constantFrom('/snap1', '/snap2', '/nowhere/snap'),
  'snapshot-node-name': fc.constantFrom('snap1', 'snap2', 'top'),
});

const anyAction: fc.Arbitrary<Action> = fc.oneof(
  action('block-dirty-bitmap-add', fc.record({ node: likelyNode, name: bitmap, granularity })),
  action('block-dirty-bitmap-remove', named),
  action('block-dirty-bitmap-clear', named),
  action('block-dirty-bitmap-enable', named),
  action('block-dirty-bitmap-disable', named),
  action('x-block-dirty-bitmap-enable', named),
  action('x-block-dirty-bitmap-disable', named),
  action('block-dirty-bitmap-merge', merge),
  action('x-block-dirty-bitmap-merge', fc.oneof(merge, oldMerge)),
  action('blockdev-backup', backup),
  action('drive-backup', driveBackup),
  action('blockdev-snapshot', fc.record({ node: likelyNode, overlay: likelyOverlay })),
  action('blockdev-snapshot-sync', snapshotSync),
  action('blockdev-snapshot-internal-sync', fc.record({ device: node, name: bitmap })),
);

const qcow2 = (name: string, more: Arguments = {}): Command => [
  'blockdev-add',
  {
    driver: 'qcow2',
    'node-name': name,
    file: { driver: 'file', filename: `/${name}` },
    ...more,
  },
];
const addBitmap = (where: string, name: string, more: Arguments = {}): Command => [
  'block-dirty-bitmap-add',
  { node: where, name, ...more },
];

const SETUP: readonly Command[] = [
  qcow2('base', { 'read-only': true }),
  qcow2('top', { backing: 'base' }),
  qcow2('other', { backing: null }),
  ['blockdev-add', { driver: 'null-co', 'node-name': 'spare', size: 2 ** 18 }],
  ['blockdev-add', { driver: 'file', filename: '/disk', 'node-name': 'disk' }],
  addBitmap('top', 'a', { granularity: 512 }),
  addBitmap('top', 'b'),
  addBitmap('disk', 'a', { disabled: true }),
  addBitmap('disk', 'c', { granularity: 4096 }),
];

async function staged(check: (stage: FaultStage) => Promise<void>): Promise<void> {
  const stage = new FaultStage();
  try {
    await stage.start(SETUP, 'top');
    await check(stage);
  } finally {
    await stage.end();
    expect(stage.host.openFiles, 'files left open').toBe(0);
    expect(await stage.lockable(), 'locks left').toHaveLength(5);
  }
}

async function failureOf(run: Promise<unknown>): Promise<unknown> {
  return await run.then(
    () => null,
    (error: unknown) => error,
  );
}

describe('a transaction', () => {
  it('that fails anywhere leaves nothing changed', async () => {
    let undone = 0;
    await fc.assert(
      fc.asyncProperty(
        fc.array(anyAction, { maxLength: 6 }),
        fc.option(fc.nat(6), { freq: 4 }),
        fc.boolean(),
        (list, abortAt, grouped) =>
          staged(async (stage) => {
            const actions = [...list];
            if (abortAt !== null) actions.splice(abortAt, 0, { type: 'abort', data: {} });
            const properties = grouped ? { properties: { 'completion-mode': 'grouped' } } : {};
            const before = await stage.picture();
            const failure = await failureOf(stage.run(['transaction', { actions, ...properties }]));
            if (failure === null) {
              expect(abortAt).toBeNull();
              return;
            }
            expect(failure).toBeInstanceOf(BlockError);
            expect(await stage.picture()).toEqual(before);
            const position = actions.findIndex(({ type }) => type === 'abort');
            if (position > 0 && /using Abort/.test((failure as BlockError).message)) undone += 1;
          }),
      ),
      { numRuns: runs(150, 500) },
    );
    expect(undone, 'runs that undid something').toBeGreaterThan(0);
  }, 120_000);

  it('does what its actions do one after the other', async () => {
    // Until all is committed a bitmap that is removed keeps its name.
    const alone = anyAction.filter(
      ({ type }) => !type.endsWith('remove') && !type.includes('backup'),
    );
    await fc.assert(
      fc.asyncProperty(fc.array(alone, { maxLength: 5 }), (actions) =>
        staged(async (together) => {
          const failure = await failureOf(together.run(['transaction', { actions }]));
          if (failure !== null) return;
          const picture = await together.picture(false);
          await staged(async (apart) => {
            for (const { type, data } of actions) await apart.run([type, data]);
            expect(withoutFiles(await apart.picture(false))).toEqual(withoutFiles(picture));
          });
        }),
      ),
      { numRuns: runs(20, 200) },
    );
  }, 120_000);
});

/** Nodes without a name of their own get one by chance. */
function withoutFiles(picture: unknown): unknown {
  return JSON.parse(JSON.stringify(picture).replaceAll(/#block\d+/g, '#block')) as unknown;
}
