// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from 'vitest';
import { startStream } from '../../../src/jobs/index.js';
import {
  firstDifference,
  Guest,
  makeChain,
  makeStage,
  openImage,
  readAll,
  turns,
} from '../../helpers/job-stage.js';
import type { Stage } from '../../helpers/job-stage.js';

async function chainStage(): Promise<Stage & { readonly guest: Guest }> {
  const stage = makeStage();
  const nodes = await makeChain(stage, { seed: 1 });
  const guest = await Guest.attach(stage, nodes['top'] as never);
  return { ...stage, guest };
}

const FINISHED = [
  'JSC created', 'JSC running', 'JSC waiting', 'JSC pending', 'BLOCK_JOB_COMPLETED',
  'JSC concluded', 'JSC null',
];

describe('block-stream', () => {
  it('streams the whole chain: nothing below is needed any more', async () => {
    const stage = await chainStage();
    const job = await startStream(stage.jobs, { 'job-id': 's', device: 'top' });
    await job.ended;
    expect(stage.trace).toEqual(FINISHED);
    const top = stage.graph.require('top');
    expect(top.backing).toBeNull();
    expect(top.backingLink()).toBeNull();
    expect(firstDifference(await readAll(top), stage.guest.expected)).toBe(-1);
    expect((await top.check('none')).corruptions).toBe(0);
    expect(stage.events.find((event) => event.name === 'BLOCK_JOB_COMPLETED')?.data).toEqual({
      device: 's', len: 2 ** 21, offset: 2 ** 21, speed: 0, type: 'stream',
    });
    expect([...stage.graph.nodes].filter((node) => node.driver.kind === 'filter')).toEqual([]);
  });

  it('with a base only the layers above it are copied, and the header names the base', async () => {
    for (const args of [{ 'base-node': 'base' }, { base: 'base.qcow2' }, { bottom: 'mid' }]) {
      const stage = await chainStage();
      const job = await startStream(stage.jobs, { 'job-id': 's', device: 'top', ...args });
      await job.ended;
      const top = stage.graph.require('top');
      expect(top.backing?.name).toBe('base');
      expect(top.backingLink()).toEqual({ file: 'base.qcow2', format: 'qcow2' });
      expect(firstDifference(await readAll(top), stage.guest.expected)).toBe(-1);
    }
  });

  it('writes the backing-file string as it is given', async () => {
    const stage = await chainStage();
    const job = await startStream(stage.jobs, {
      'job-id': 's', device: 'top', 'base-node': 'base', 'backing-file': './odd name',
    });
    await job.ended;
    expect(stage.graph.require('top').backingLink()).toEqual({
      file: './odd name', format: 'qcow2',
    });
  });

  it('with nothing to copy it is through before the reply', async () => {
    const stage = await chainStage();
    const job = await startStream(stage.jobs, { 'job-id': 's', device: 'top', bottom: 'top' });
    expect(stage.trace).toEqual(FINISHED);
    expect(job.blockInfo()).toMatchObject({ len: 0, offset: 0 });
    expect(stage.graph.require('top').backing?.name).toBe('mid');
  });

  const refusals: readonly (readonly [object, string])[] = [
    [{ base: 'x', 'base-node': 'mid' },
      "'base' and 'base-node' cannot be specified at the same time"],
    [{ base: 'x', bottom: 'mid' }, "'base' and 'bottom' cannot be specified at the same time"],
    [{ bottom: 'mid', 'base-node': 'base' },
      "'bottom' and 'base-node' cannot be specified at the same time"],
    [{ base: 'nope' }, "Can't find 'nope' in the backing chain"],
    [{ 'base-node': 'nope' }, "Cannot find device='' nor node-name='nope'"],
    [{ 'base-node': 'top' }, "Node 'top' is not a backing image of 'top'"],
    [{ bottom: 'nope' }, "Cannot find device='' nor node-name='nope'"],
    [{ device: 'nope' }, "Cannot find device='nope' nor node-name='nope'"],
    [{ 'backing-file': 'foo' }, 'backing file specified, but streaming the entire chain'],
    [{ 'job-id': '1bad' }, "Invalid job ID '1bad'"],
    [{ 'job-id': '' }, "Invalid job ID ''"],
    [{ 'filter-node-name': 'top' },
      "Could not create node: Duplicate nodes with node-name='top'"],
    [{ 'filter-node-name': '1#' }, "Could not create node: Invalid node-name: '1#'"],
  ];
  for (const [args, message] of refusals) {
    it(`refuses ${JSON.stringify(args)} without a trace`, async () => {
      const stage = await chainStage();
      const start = startStream(stage.jobs, { 'job-id': 's', device: 'top', ...args });
      await expect(start).rejects.toThrow(message);
      expect(stage.trace).toEqual([]);
      expect(stage.jobs.list()).toEqual([]);
      const job = await startStream(stage.jobs, { 'job-id': 's', device: 'top' });
      await job.ended;
      expect(stage.trace).toEqual(FINISHED);
    });
  }

  it('refused after its creation it shows created and null', async () => {
    const stage = await chainStage();
    const start = startStream(stage.jobs, { 'job-id': 's', device: 'top', speed: -1 });
    await expect(start).rejects.toThrow("Parameter 'speed' expects a non-negative value");
    expect(stage.trace).toEqual(['JSC created', 'JSC null']);
    expect([...stage.graph.nodes].filter((node) => node.driver.kind === 'filter')).toEqual([]);
  });

  it('refuses a read-only top by name', async () => {
    const stage = makeStage();
    await makeChain(stage, { seed: 1 });
    await stage.graph.close(stage.graph.require('top'));
    await openImage(stage, 'top', { backing: 'mid', readOnly: true });
    const start = startStream(stage.jobs, { 'job-id': 's', device: 'top' });
    await expect(start).rejects.toThrow("Node 'top' is read-only");
  });

  it('keeps its chain busy and frozen while it runs, and lets go on cancel', async () => {
    const stage = await chainStage();
    const job = await startStream(stage.jobs, { 'job-id': 's', device: 'top', speed: 65_536 });
    await turns();
    for (const name of ['top', 'mid', 'base']) {
      const other = startStream(stage.jobs, { 'job-id': 'other', device: name });
      await expect(other).rejects.toThrow(
        `Node '${name}' is busy: block device is in use by block job: stream`,
      );
    }
    const top = stage.graph.require('top');
    await expect(stage.graph.setBacking(top, null)).rejects.toThrow(/frozen/);
    await job.cancel();
    expect(stage.trace.slice(4)).toEqual([
      'JSC aborting', 'BLOCK_JOB_CANCELLED', 'JSC concluded', 'JSC null',
    ]);
    expect(firstDifference(await readAll(top), stage.guest.expected)).toBe(-1);
    expect(top.backing?.name).toBe('mid');
    expect(stage.jobs.blockerOf(top)).toBeNull();
    await stage.graph.setBacking(top, stage.graph.require('base'));
  });

  it('pauses before the verb returns and goes on after resume', async () => {
    const stage = await chainStage();
    const job = await startStream(stage.jobs, { 'job-id': 's', device: 'top', speed: 65_536 });
    await turns();
    job.pause();
    expect(job.blockInfo()).toMatchObject({ status: 'paused', paused: true, busy: false });
    const { offset } = job.blockInfo();
    (stage.host.clock as unknown as { advance(ms: number): void }).advance(60_000);
    await turns();
    expect(job.blockInfo().offset).toBe(offset);
    job.setSpeed(0);
    job.resume();
    await job.ended;
    expect(stage.trace).toEqual([
      'JSC created', 'JSC running', 'JSC paused', 'JSC running', ...FINISHED.slice(2),
    ]);
  });

  it('a drained section of someone else shows as a short pause', async () => {
    const stage = await chainStage();
    const job = await startStream(stage.jobs, { 'job-id': 's', device: 'top', speed: 65_536 });
    await turns();
    const section = await stage.graph.drain([stage.graph.require('top')]);
    section.end();
    expect(stage.trace.slice(2)).toEqual(['JSC paused', 'JSC running']);
    await job.cancel();
  });
});
