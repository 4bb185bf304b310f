// SPDX-License-Identifier: Apache-2.0
// copy-before-write and copy-on-read as a user adds them, without a job.
import { describe, expect, it } from 'vitest';
import type { NodeOptions } from '../../../src/block/index.js';
import {
  createImage,
  firstDifference,
  Guest,
  makeChain,
  makeStage,
  openImage,
  readAll,
} from '../../helpers/job-stage.js';
import type { Stage } from '../../helpers/job-stage.js';

const SIZE = 2 ** 20;

async function chain(seed: number): Promise<Stage> {
  const stage = makeStage({ seed });
  await makeChain(stage, { seed, size: SIZE, scribbles: 3 });
  return stage;
}

describe('copy-on-read', () => {
  it('fills the overlay with what is read, and nothing else changes', async () => {
    const stage = await chain(1);
    const top = stage.graph.require('top');
    const before = await readAll(top);
    await stage.graph.open({
      driver: 'copy-on-read', 'node-name': 'cor', file: 'top',
    } as NodeOptions);
    const guest = await Guest.attach(stage, stage.graph.require('cor'));
    expect(firstDifference(guest.expected, before)).toBe(-1);
    for (let at = 0; at < SIZE; ) {
      const below = await stage.graph.require('mid').blockStatus(at, SIZE - at, false);
      const status = await top.blockStatus(at, below.length, false);
      if (below.allocated) expect(status.allocated).toBe(true);
      at += Math.min(below.length, status.length);
    }
    await stage.graph.setBacking(stage.graph.require('mid'), null);
    expect(firstDifference(await readAll(top), before)).toBe(-1);
    expect((await top.check('none')).corruptions).toBe(0);
  });

  it('with a bottom it leaves alone what lies below that', async () => {
    const stage = await chain(2);
    const top = stage.graph.require('top');
    await stage.graph.open({
      driver: 'copy-on-read', 'node-name': 'cor', file: 'top', bottom: 'mid',
    } as NodeOptions);
    const wanted = new Map<number, boolean>();
    for (let at = 0; at < SIZE; at += 65_536) {
      const upper = await top.blockStatus(at, 65_536, false);
      const lower = await stage.graph.require('mid').blockStatus(at, 65_536, false);
      wanted.set(at, upper.allocated || lower.allocated);
    }
    await Guest.attach(stage, stage.graph.require('cor'));
    for (const [at, allocated] of wanted) {
      expect((await top.blockStatus(at, 65_536, false)).allocated).toBe(allocated);
    }
    expect([...wanted.values()]).toContain(false);
  });

  it('refuses a bottom that is missing or a filter', async () => {
    const stage = await chain(3);
    await stage.graph.open({
      driver: 'copy-on-read', 'node-name': 'cor', file: 'top',
    } as NodeOptions);
    const open = (bottom: string): Promise<unknown> =>
      stage.graph.open({ driver: 'copy-on-read', file: 'cor', bottom } as NodeOptions);
    await expect(open('nope')).rejects.toThrow("Bottom node 'nope' not found");
    await expect(open('cor')).rejects.toThrow("Bottom node 'cor' is a filter");
  });
});

describe('copy-before-write', () => {
  async function withFilter(extra: object = {}): Promise<Stage & { guest: Guest }> {
    const stage = await chain(4);
    await createImage(stage, { name: 'target', size: SIZE });
    await openImage(stage, 'target');
    await stage.graph.open({
      driver: 'copy-before-write', 'node-name': 'cbw', file: 'top', target: 'target', ...extra,
    } as NodeOptions);
    return { ...stage, guest: await Guest.attach(stage, stage.graph.require('cbw')) };
  }

  it('the target holds the old bytes of whatever was overwritten', async () => {
    const stage = await withFilter();
    const before = stage.guest.expected.slice();
    await stage.guest.write(3 * 65_536 + 512, new Uint8Array(70_000 - 368).fill(0xee));
    await stage.guest.write(3 * 65_536 + 512, new Uint8Array(512).fill(0xdd));
    const copied = await readAll(stage.graph.require('target'));
    const from = 3 * 65_536;
    const end = 5 * 65_536;
    expect(firstDifference(copied.subarray(from, end), before.subarray(from, end))).toBe(-1);
    const source = await readAll(stage.graph.require('top'));
    expect(firstDifference(source, stage.guest.expected)).toBe(-1);
  });

  it('refuses writers that would go past it', async () => {
    const stage = await withFilter();
    await expect(Guest.attach(stage, stage.graph.require('top'))).rejects.toThrow(
      /permissions 'write' are both required/,
    );
  });

  it('a failed copy fails the write, or breaks the snapshot, as it was told', async () => {
    const failing = {
      operation: 'write', nth: 1, errno: 'EIO', path: 'target.qcow2', lasting: true,
    } as const;
    const strict = await withFilter();
    strict.host.faults.add(failing);
    const bytes = new Uint8Array(512).fill(0xee);
    // Where the old bytes are zeroes nothing would be written to the target.
    const offset = strict.guest.expected.findIndex((byte) => byte !== 0) & ~511;
    const write = async (): Promise<void> => strict.guest.backend.write(offset, bytes);
    await expect(write()).rejects.toThrow(
      'Copying before the write failed: Input/output error',
    );
    const loose = await withFilter({ 'on-cbw-error': 'break-snapshot' });
    loose.host.faults.add(failing);
    await loose.guest.write(offset, bytes);
    const source = await readAll(loose.graph.require('top'));
    expect(firstDifference(source, loose.guest.expected)).toBe(-1);
  });
});
