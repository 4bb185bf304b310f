// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from 'vitest';
import { Permission } from '../../../src/base/index.js';
import type { ManualClock } from '../../../src/base/index.js';
import { MemoryHost } from '../../../src/host/index.js';
import { startDriveMirror, startMirror } from '../../../src/jobs/index.js';
import type { Job } from '../../../src/jobs/index.js';
import {
  createImage,
  firstDifference,
  Guest,
  makeChain,
  makeStage,
  openImage,
  readAll,
  turns,
} from '../../helpers/job-stage.js';
import type { Stage } from '../../helpers/job-stage.js';

const SIZE = 2 ** 21;
const USUAL = { 'job-id': 'm', device: 'top', target: 'target', sync: 'full' } as const;

interface MirrorStage extends Stage {
  readonly guest: Guest;
}

async function mirrorStage(host?: MemoryHost): Promise<MirrorStage> {
  const stage = makeStage(host === undefined ? {} : { host });
  const nodes = await makeChain(stage, { seed: 3 });
  await createImage(stage, { name: 'target', size: SIZE });
  await openImage(stage, 'target');
  const guest = await Guest.attach(stage, nodes['top'] as never);
  return { ...stage, guest };
}

async function reach(job: Job, ...statuses: string[]): Promise<void> {
  for (let turn = 0; turn < 3000 && !statuses.includes(job.status); turn += 1) await turns(1);
  expect(statuses).toContain(job.status);
}

const bytes = (value: number, length = 4096): Uint8Array => new Uint8Array(length).fill(value);

describe('a mirror', () => {
  it('takes the place of its source when it is told to, guests included', async () => {
    const stage = await mirrorStage();
    const { guest, graph } = stage;
    const job = await startMirror(stage.jobs, USUAL);
    await reach(job, 'ready');
    await guest.write(65_536, bytes(7));
    job.complete();
    await job.ended;
    expect(stage.trace).toEqual([
      'JSC created', 'JSC running', 'JSC ready', 'BLOCK_JOB_READY', 'JSC waiting', 'JSC pending',
      'BLOCK_JOB_COMPLETED', 'JSC concluded', 'JSC null',
    ]);
    expect(guest.backend.node.name).toBe('target');
    expect(firstDifference(await readAll(graph.require('target')), guest.expected)).toBe(-1);
    expect([...graph.require('top').parents]).toEqual([]);
  });

  it('copies what a guest writes while it is ready, by itself', async () => {
    const { jobs, graph, guest } = await mirrorStage();
    const job = await startMirror(jobs, USUAL);
    await reach(job, 'ready');
    await guest.write(3 * 65_536 + 512, bytes(9));
    await turns(60);
    expect(firstDifference(await readAll(graph.require('target')), guest.expected)).toBe(-1);
    const { offset, len, busy } = job.blockInfo();
    expect([offset, busy]).toEqual([len, false]);
    await job.cancelBlock(true);
  });

  it('that blocks writes has them when they are acknowledged', async () => {
    const { jobs, graph, guest } = await mirrorStage();
    const job = await startMirror(jobs, { ...USUAL, 'copy-mode': 'write-blocking' });
    await reach(job, 'ready');
    const target = graph.require('target');
    for (const [offset, length] of [[0, 65_536], [70_000 - (70_000 % 512), 1024], [131_072, 512]]) {
      await guest.write(offset ?? 0, bytes(5, length));
      expect(firstDifference(await readAll(target), guest.expected)).toBe(-1);
    }
    await guest.backend.writeZeroes(65_536, 200_704);
    guest.expected.fill(0, 65_536, 65_536 + 200_704);
    expect(firstDifference(await readAll(target), guest.expected)).toBe(-1);
    await job.cancelBlock(true);
  });

  it('that blocks writes fails when its target does, and the guest does not', async () => {
    const { jobs, guest, host, events, graph } = await mirrorStage();
    const job = await startMirror(jobs, {
      ...USUAL, 'copy-mode': 'write-blocking', 'auto-dismiss': false,
    });
    await reach(job, 'ready');
    host.faults.add({ operation: 'write', path: 'target.qcow2', nth: 1, errno: 'EIO' });
    await guest.write(0, bytes(3));
    await reach(job, 'concluded');
    expect(job.info().error).toBe('Input/output error');
    expect(events.find(({ name }) => name === 'BLOCK_JOB_ERROR')?.data).toEqual({
      device: 'm', operation: 'write', action: 'report',
    });
    expect(firstDifference(await readAll(graph.require('top')), guest.expected)).toBe(-1);
  });

  it('is actively synced once it blocks writes and has nothing left to copy', async () => {
    const { jobs, guest, host } = await mirrorStage();
    const job = await startMirror(jobs, { ...USUAL, speed: 65_536, 'on-target-error': 'stop' });
    const synced = (): unknown => {
      const info = job.blockInfo();
      return info.type === 'mirror' && info['actively-synced'];
    };
    job.change({ type: 'mirror', 'copy-mode': 'write-blocking' });
    await turns();
    expect([job.ready, synced()]).toEqual([false, false]);
    job.setSpeed(0);
    await reach(job, 'ready');
    expect(synced()).toBe(true);
    await guest.write(65_536, bytes(7));
    expect(synced()).toBe(true);
    host.faults.add({ operation: 'write', path: 'target.qcow2', nth: 1, errno: 'EIO' });
    await guest.write(131_072, bytes(8));
    expect(synced()).toBe(false);
    await reach(job, 'standby');
    job.resume();
    for (let turn = 0; turn < 500 && synced() === false; turn += 1) await turns(1);
    expect(synced()).toBe(true);
    job.complete();
    await job.ended;
  });

  it('that copies in the background is never actively synced, and no other job tells', async () => {
    const { jobs } = await mirrorStage();
    const job = await startMirror(jobs, USUAL);
    await reach(job, 'ready');
    expect(job.blockInfo()).toMatchObject({ type: 'mirror', 'actively-synced': false });
    await job.cancelBlock(true);
  });

  it('goes from background to write-blocking while it runs, and not back', async () => {
    const { jobs, graph, guest } = await mirrorStage();
    const job = await startMirror(jobs, USUAL);
    await reach(job, 'ready');
    job.change({ type: 'mirror', 'copy-mode': 'background' });
    job.change({ type: 'mirror', 'copy-mode': 'write-blocking' });
    job.change({ type: 'mirror', 'copy-mode': 'write-blocking' });
    await guest.write(131_072, bytes(7));
    expect(firstDifference(await readAll(graph.require('target')), guest.expected)).toBe(-1);
    expect(() => job.change({ type: 'mirror', 'copy-mode': 'background' })).toThrow(
      "Change to copy mode 'background' is not implemented",
    );
    expect(() => job.change({ type: 'backup' })).toThrow(
      "Job 'm' is of type 'mirror', not 'backup'",
    );
    await job.cancelBlock(true);
    await job.ended;
    expect(() => job.change({ type: 'mirror', 'copy-mode': 'background' })).toThrow(
      "cannot accept command verb 'change'",
    );
  });

  it('stops for want of space, goes on after the resume, and is complete', async () => {
    const { jobs, guest, host, graph } = await mirrorStage();
    host.faults.add({ operation: 'write', path: 'target.qcow2', nth: 3, errno: 'ENOSPC' });
    const job = await startMirror(jobs, { ...USUAL, 'on-target-error': 'enospc' });
    await reach(job, 'paused');
    expect(job.blockInfo()['io-status']).toBe('nospace');
    job.resume();
    await reach(job, 'ready');
    job.complete();
    await job.ended;
    expect(firstDifference(await readAll(graph.require('target')), guest.expected)).toBe(-1);
  });

  it('stands by in a drained section, and goes on after it', async () => {
    const { jobs, guest, graph, trace } = await mirrorStage();
    const job = await startMirror(jobs, USUAL);
    await reach(job, 'ready');
    for (const name of ['top', 'target']) {
      const section = await graph.drain([graph.require(name)]);
      expect(job.status).toBe('standby');
      section.end();
      expect(job.status).toBe('ready');
    }
    await guest.write(0, bytes(1));
    job.complete();
    await job.ended;
    expect(trace).toContain('BLOCK_JOB_COMPLETED');
    expect(firstDifference(await readAll(graph.require('target')), guest.expected)).toBe(-1);
  });

  it('sees writes that go past its filter', async () => {
    const { jobs, graph, guest } = await mirrorStage();
    const job = await startMirror(jobs, { ...USUAL, 'copy-mode': 'write-blocking' });
    await reach(job, 'ready');
    const past = await graph.attach(graph.require('top'), 'other', {
      taken: Permission.write, shared: Permission.all,
    });
    await past.write(4096, bytes(8));
    guest.expected.set(bytes(8), 4096);
    job.complete();
    await job.ended;
    expect(firstDifference(await readAll(graph.require('target')), guest.expected)).toBe(-1);
    expect(past.node.name).toBe('target');
  });

  it('keeps to its speed', async () => {
    const host = new MemoryHost();
    const { jobs } = await mirrorStage(host);
    const clock = host.clock as ManualClock;
    const job = await startMirror(jobs, { ...USUAL, speed: 2 ** 20 });
    const start = clock.now();
    while (job.status === 'running') {
      await turns(10);
      clock.advance(10);
    }
    const seconds = (clock.now() - start) / 1000;
    expect(job.status).toBe('ready');
    // Zeroes cost nothing, so that it may be faster than its length tells.
    expect(seconds).toBeGreaterThan(0.5);
    expect(seconds).toBeLessThan(2.3);
    await job.cancelBlock(true);
  });

  it('of the top leaves alone what lies below', async () => {
    const { jobs, graph, guest } = await mirrorStage();
    await createImage(makeStageOf(graph, jobs), { name: 'over', size: SIZE, backing: 'mid' });
    await openImage({ graph }, 'over', { backing: 'mid' });
    const job = await startMirror(jobs, { ...USUAL, target: 'over', sync: 'top' });
    await reach(job, 'ready');
    job.complete();
    await job.ended;
    expect(guest.backend.node.name).toBe('over');
    expect(firstDifference(await readAll(graph.require('over')), guest.expected)).toBe(-1);
  });

  it('of a read-only source is read-only once it is in place', async () => {
    const { jobs, graph, guest } = await mirrorStage();
    const view = guest.expected.slice();
    await guest.backend.detach();
    await graph.setReadOnly(graph.require('top'), true);
    const job = await startMirror(jobs, USUAL);
    await reach(job, 'ready');
    expect(graph.require('target').readOnly).toBe(false);
    job.complete();
    await job.ended;
    expect(job.info().error).toBeUndefined();
    expect(graph.require('target').readOnly).toBe(true);
    expect(firstDifference(await readAll(graph.require('target')), view)).toBe(-1);
  });

  it('of nothing is an overlay of its source once it is in place', async () => {
    const { jobs, graph, guest, host } = await mirrorStage();
    const job = await startDriveMirror(jobs, {
      'job-id': 'm', device: 'top', target: 'new.qcow2', sync: 'none', format: 'qcow2',
      'node-name': 'new',
    });
    expect(job.status).toBe('ready');
    await guest.write(0, bytes(4, 512));
    await turns(40);
    job.complete();
    await job.ended;
    expect(host.paths()).toContain('/new.qcow2');
    expect(guest.backend.node.name).toBe('new');
    expect(guest.backend.node.backing?.name).toBe('top');
    expect(firstDifference(await readAll(graph.require('new')), guest.expected)).toBe(-1);
  });

  it('into an image that is there opens its backing file at the end', async () => {
    const { jobs, graph, guest } = await mirrorStage();
    await guest.backend.flush();
    const other = makeStageOf(graph, jobs);
    await createImage(other, { name: 'root', size: SIZE });
    await createImage(other, { name: 'there', size: SIZE, backing: 'root' });
    const job = await startDriveMirror(jobs, {
      'job-id': 'm', device: 'top', target: 'there.qcow2', sync: 'full', mode: 'existing',
    });
    await reach(job, 'ready');
    job.complete();
    await job.ended;
    expect(job.info().error).toBeUndefined();
    expect(guest.backend.node.backing?.filename).toBe('root.qcow2');
    expect(firstDifference(await readAll(guest.backend.node), guest.expected)).toBe(-1);
  });

  it('that made its target lets it go when it is cancelled', async () => {
    const { jobs, graph } = await mirrorStage();
    const job = await startDriveMirror(jobs, {
      'job-id': 'm', device: 'top', target: 'new.qcow2', sync: 'full', 'node-name': 'new',
    });
    await reach(job, 'ready');
    await job.cancelBlock(true);
    await job.ended;
    expect(graph.find('new')).toBeNull();
    expect(graph.find('top')?.parents.size).toBe(1);
  });
});

/** Enough of a stage to make images with. */
function makeStageOf(graph: Stage['graph'], jobs: Stage['jobs']): Stage {
  return { graph, jobs, host: graph.host as MemoryHost, trace: [], events: [] };
}
