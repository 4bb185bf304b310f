// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from 'vitest';
import { startCommit } from '../../../src/jobs/index.js';
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

const BELOW = { 'job-id': 'c', device: 'top', 'top-node': 'mid', 'auto-dismiss': false } as const;
const ACTIVE = { 'job-id': 'c', device: 'top', 'auto-dismiss': false } as const;

async function reach(job: Job, ...statuses: string[]): Promise<void> {
  for (let turn = 0; turn < 3000 && !statuses.includes(job.status); turn += 1) await turns(1);
  expect(statuses).toContain(job.status);
}

/** The chain of three with the base, and what the test asks, opened read-only again. */
async function reopened(sizes?: readonly number[], readOnly = ['base', 'mid']): Promise<Stage> {
  const stage = makeStage();
  await makeChain(stage, { seed: 4, ...(sizes === undefined ? {} : { sizes }) });
  const { graph } = stage;
  for (const name of ['top', 'mid', 'base']) await graph.close(graph.require(name));
  for (const [name, backing] of [['base', null], ['mid', 'base'], ['top', 'mid']] as const) {
    await openImage(stage, name, { backing, readOnly: readOnly.includes(name) });
  }
  return stage;
}

describe('a commit below the active layer', () => {
  it('writes to a read-only base, which is read-only again afterwards', async () => {
    const stage = await reopened();
    const { graph } = stage;
    const guest = await Guest.attach(stage, graph.require('top'));
    const job = await startCommit(stage.jobs, { ...BELOW, 'auto-finalize': false });
    await reach(job, 'pending');
    expect(graph.require('base').readOnly).toBe(false);
    expect([...graph.nodes].some(({ driver }) => driver.name === 'commit_top')).toBe(true);
    await job.finalize();
    expect(job.info().error).toBeUndefined();
    expect(graph.require('base').readOnly).toBe(true);
    expect(graph.require('top').backing?.name).toBe('base');
    expect(firstDifference(await readAll(graph.require('top')), guest.expected)).toBe(-1);
  });

  it('makes a base that is too small as large as its top', async () => {
    const stage = await reopened([2 ** 20, 2 ** 21, 2 ** 21], []);
    const { graph } = stage;
    const view = await readAll(graph.require('top'));
    const job = await startCommit(stage.jobs, BELOW);
    await job.ended;
    expect(job.info().error).toBeUndefined();
    expect(graph.require('base').length).toBe(2 ** 21);
    expect(firstDifference(await readAll(graph.require('top')), view)).toBe(-1);
  });

  it('names the base in every overlay of its top, a read-only one included', async () => {
    const stage = await reopened();
    const { graph } = stage;
    await createImage(stage, { name: 'side', size: 2 ** 21, backing: 'mid' });
    await openImage(stage, 'side', { backing: 'mid', readOnly: true });
    const views = [await readAll(graph.require('top')), await readAll(graph.require('side'))];
    const job = await startCommit(stage.jobs, { ...BELOW, 'backing-file': 'renamed' });
    await job.ended;
    expect(job.info().error).toBeUndefined();
    for (const [index, name] of ['top', 'side'].entries()) {
      const node = graph.require(name);
      expect(node.backingLink()).toEqual({ file: 'renamed', format: 'qcow2' });
      expect(node.backing?.name).toBe('base');
      expect(firstDifference(await readAll(node), views[index] as Uint8Array)).toBe(-1);
    }
    expect(graph.require('side').readOnly).toBe(true);
  });

  it('whose link cannot be written fails, and the chain is as it was', async () => {
    const stage = await reopened();
    const { graph, host } = stage;
    const view = await readAll(graph.require('top'));
    const job = await startCommit(stage.jobs, { ...BELOW, 'auto-finalize': false });
    await reach(job, 'pending');
    host.faults.add({ operation: 'write', path: 'top.qcow2', nth: 1, errno: 'EIO', lasting: true });
    await job.finalize();
    host.faults.clear();
    expect(job.info().error).toBe('Input/output error');
    const top = graph.require('top');
    expect([top.backing?.name, top.backingLink()?.file]).toEqual(['mid', 'mid.qcow2']);
    expect(graph.require('base').readOnly).toBe(true);
    expect(firstDifference(await readAll(top), view)).toBe(-1);
  });

  it('refuses a base that someone writes to', async () => {
    const stage = await reopened(undefined, []);
    await Guest.attach(stage, stage.graph.require('base'));
    await expect(startCommit(stage.jobs, BELOW)).rejects.toThrow(/^Permission conflict on node/);
    expect(stage.trace).toEqual(['JSC created', 'JSC null']);
    expect([...stage.graph.nodes].some(({ driver }) => driver.kind === 'filter')).toBe(false);
  });

  it('keeps others from changing the chain', async () => {
    const stage = await reopened();
    const { graph } = stage;
    const job = await startCommit(stage.jobs, { ...BELOW, 'auto-finalize': false });
    await reach(job, 'pending');
    await expect(graph.setBacking(graph.require('mid'), null)).rejects.toThrow(/frozen/);
    await job.finalize();
    await graph.setBacking(graph.require('mid'), null);
  });
});

describe('a commit of the active layer', () => {
  it('gives its guests to the base, which may be written from then on', async () => {
    const stage = await reopened();
    const { graph } = stage;
    const guest = await Guest.attach(stage, graph.require('top'));
    const job = await startCommit(stage.jobs, ACTIVE);
    await reach(job, 'ready');
    await guest.write(0, new Uint8Array(512).fill(9));
    job.complete();
    await job.ended;
    expect(job.info().error).toBeUndefined();
    expect(guest.backend.node.name).toBe('base');
    await guest.write(65_536, new Uint8Array(512).fill(8));
    expect(firstDifference(await readAll(graph.require('base')), guest.expected)).toBe(-1);
  });

  it('that is cancelled leaves a read-only base read-only', async () => {
    const stage = await reopened();
    const { graph } = stage;
    for (const force of [true, false]) {
      const job = await startCommit(stage.jobs, { ...ACTIVE, 'auto-dismiss': true });
      await reach(job, 'ready');
      expect(graph.require('base').readOnly).toBe(false);
      await job.cancelBlock(force);
      await job.ended;
      expect(graph.require('base').readOnly).toBe(true);
      expect(graph.require('top').backing?.name).toBe('mid');
    }
  });

  it('makes a base that is too small as large as the top', async () => {
    const stage = await reopened([2 ** 20, 2 ** 21, 2 ** 21], []);
    const { graph } = stage;
    const guest = await Guest.attach(stage, graph.require('top'));
    const job = await startCommit(stage.jobs, ACTIVE);
    await reach(job, 'ready');
    job.complete();
    await job.ended;
    expect(job.info().error).toBeUndefined();
    expect(graph.require('base').length).toBe(2 ** 21);
    expect(firstDifference(await readAll(graph.require('base')), guest.expected)).toBe(-1);
  });

  it('is what a middle image with a writer needs', async () => {
    const stage = await reopened(undefined, []);
    await Guest.attach(stage, stage.graph.require('mid'));
    const named = { ...BELOW, 'backing-file': 'x' };
    await expect(startCommit(stage.jobs, named)).rejects.toThrow(
      "'backing-file' specified, but 'top' has a writer on it",
    );
  });
});
