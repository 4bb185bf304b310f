// SPDX-License-Identifier: Apache-2.0
// copy-before-write and copy-on-read as a user adds them, without a job.
import { describe, expect, it } from 'vitest';
import { Permission } from '../../../src/base/index.js';
import type { NodeOptions } from '../../../src/block/index.js';
import {
  createImage,
  firstDifference,
  Guest,
  makeChain,
  makeStage,
  openImage,
  openRaw,
  readAll,
  turns,
} from '../../helpers/job-stage.js';
import type { Stage } from '../../helpers/job-stage.js';
import { startBackup } from '../../helpers/start-backup.js';

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

  it('fills what a backup reads through it, and both end', async () => {
    const stage = await chain(4);
    const before = await readAll(stage.graph.require('top'));
    const cor = { driver: 'copy-on-read', 'node-name': 'cor', file: 'top' };
    await stage.graph.open(cor as NodeOptions);
    await createImage(stage, { name: 'target', size: SIZE });
    await openImage(stage, 'target');
    const args = { 'job-id': 'b', device: 'cor', target: 'target', sync: 'full' } as const;
    const job = await startBackup(stage.jobs, args);
    await turns(500);
    expect(job.status).toBe('null');
    expect(firstDifference(await readAll(stage.graph.require('target')), before)).toBe(-1);
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

describe('copy-on-read with a bottom', () => {
  it('keeps the links down to it until it is gone', async () => {
    const stage = await chain(7);
    const { graph } = stage;
    await graph.open({
      driver: 'copy-on-read', 'node-name': 'cor', file: 'top', bottom: 'mid',
    } as NodeOptions);
    const change = (name: string): Promise<void> => graph.setBacking(graph.require(name), null);
    await expect(change('top')).rejects.toThrow("Cannot change 'backing' link from 'top' to 'mid'");
    expect(graph.require('top').backing?.name).toBe('mid');
    await graph.close(graph.require('cor'));
    await change('top');
    expect(graph.require('top').backing).toBe(null);
  });

  it('refuses one that is elsewhere, and keeps nothing when it does', async () => {
    const stage = await chain(8);
    await createImage(stage, { name: 'other', size: SIZE });
    await openImage(stage, 'other');
    const options = { driver: 'copy-on-read', 'node-name': 'cor', file: 'top', bottom: 'other' };
    await expect(stage.graph.open(options as NodeOptions)).rejects.toThrow(
      "Bottom node 'other' is not in the backing chain of 'cor'",
    );
    expect(stage.graph.find('cor')).toBe(null);
    await stage.graph.setBacking(stage.graph.require('top'), null);
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

describe('below a format that is in use', () => {
  const format = { driver: 'qcow2', 'node-name': 'disk' };

  /** `disk` over a file, empty so far; then a filter and a snapshot between the two. */
  async function fleeceFile(seed: number): Promise<Stage & { guest: Guest }> {
    const stage = makeStage({ seed });
    await createImage(stage, { name: 'disk', size: SIZE });
    const open = (options: object): Promise<unknown> => stage.graph.open(options as NodeOptions);
    await open({ driver: 'file', 'node-name': 'file', filename: 'disk.qcow2' });
    await open({ ...format, file: 'file' });
    await createImage(stage, { name: 'scratch', size: 4 * SIZE });
    await openImage(stage, 'scratch');
    const guest = await Guest.attach(stage, stage.graph.require('disk'));
    await guest.write(0, new Uint8Array(100_000).fill(0x11));
    return { ...stage, guest };
  }

  it('copy-before-write lets the file grow; its snapshot opens as the disk of then', async () => {
    const { graph, guest } = await fleeceFile(5);
    await graph.open({
      driver: 'copy-before-write', 'node-name': 'cbw', file: 'file', target: 'scratch',
    } as NodeOptions);
    await graph.reopen([{ ...format, file: 'cbw' } as NodeOptions]);
    const before = guest.expected.slice();
    const size = graph.require('cbw').length;
    await graph.open({
      driver: 'snapshot-access', 'node-name': 'then', file: 'cbw',
    } as NodeOptions);
    for (let offset = 0; offset < SIZE - 50_176; offset += 130_560) {
      await guest.write(offset, new Uint8Array(50_176).fill(0x22));
    }
    await guest.backend.flush();
    expect(graph.require('cbw').length).toBeGreaterThan(size);
    expect(graph.require('then').length).toBe(size);
    await graph.open({
      driver: 'qcow2', 'node-name': 'old', file: 'then', 'read-only': true,
    } as NodeOptions);
    expect(firstDifference(await readAll(graph.require('old')), before)).toBe(-1);
    const back = (): Promise<void> => graph.reopen([{ ...format, file: 'file' } as NodeOptions]);
    await expect(back()).rejects.toThrow("unshared by node 'cbw'");
    for (const name of ['old', 'then']) await graph.close(graph.require(name));
    await back();
    await graph.close(graph.require('cbw'));
    expect(firstDifference(await readAll(graph.require('disk')), guest.expected)).toBe(-1);
    expect((await graph.require('disk').check('none')).corruptions).toBe(0);
  });

  it('a disk that shrinks keeps its old end in the snapshot', async () => {
    const stage = makeStage({ seed: 6 });
    const { graph } = stage;
    await createImage(stage, { name: 'target', size: SIZE });
    await openImage(stage, 'target');
    const file = await stage.host.createFile('alone.raw');
    await file.truncate(SIZE);
    await file.close();
    const alone = await openRaw(stage, 'alone');
    const guest = await Guest.attach(stage, alone);
    await guest.write(SIZE - 4096, new Uint8Array(4096).fill(7));
    await guest.backend.detach();
    const before = guest.expected;
    await graph.open({
      driver: 'copy-before-write', 'node-name': 'filter', file: 'alone', target: 'target',
    } as NodeOptions);
    await graph.open({
      driver: 'snapshot-access', 'node-name': 'then', file: 'filter',
    } as NodeOptions);
    const user = await graph.attach(graph.require('filter'), 'resizer', {
      taken: Permission.resize | Permission.write,
      shared: Permission.all,
    });
    await graph.require('filter').truncate(SIZE / 2 - 512);
    expect(alone.length).toBe(SIZE / 2 - 512);
    expect(graph.require('filter').length).toBe(SIZE / 2 - 512);
    expect(firstDifference(await readAll(graph.require('then')), before)).toBe(-1);
    await graph.require('filter').truncate(2 * SIZE);
    expect(firstDifference(await readAll(graph.require('then')), before)).toBe(-1);
    await user.detach();
  });
});
