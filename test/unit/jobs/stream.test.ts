// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from 'vitest';
import { BlockError, ManualClock } from '../../../src/base/index.js';
import { addBitmap, operationRefusal } from '../../../src/block/index.js';
import { MemoryHost } from '../../../src/host/index.js';
import { startStream } from '../../../src/jobs/index.js';
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
import { startBackup } from '../../helpers/start-backup.js';

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

  it('without an obvious backing string it is refused, and runs once one is given', async () => {
    const stage = makeStage();
    const folder = 'd/'.repeat(600);
    const options = { driver: 'qcow2', 'node-name': 'base', 'read-only': true };
    await createImage(stage, { name: `${folder}base`, size: 2 ** 20 });
    await stage.graph.open({
      ...options, file: { driver: 'file', filename: `${folder}base.qcow2` },
    });
    await createImage(stage, { name: 'mid', size: 2 ** 20, backing: 'x' });
    await createImage(stage, { name: 'top', size: 2 ** 20, backing: 'mid' });
    const file = (name: string) => ({ driver: 'file', filename: `${name}.qcow2` });
    const mid = { ...options, 'node-name': 'mid', file: file('mid'), backing: 'base' };
    await stage.graph.open(mid);
    await stage.graph.open({
      driver: 'qcow2', 'node-name': 'top', file: file('top'), backing: 'mid',
    });
    const args = { 'job-id': 's', device: 'top', 'base-node': 'base' };
    await expect(startStream(stage.jobs, args)).rejects.toThrow(
      "Node 'base' has no file name that fits into 'top' (1210 bytes): give 'backing-file'",
    );
    expect(stage.graph.require('top').backingLink()?.file).toBe('mid.qcow2');
    await (await startStream(stage.jobs, { ...args, 'backing-file': 'near' })).ended;
    expect(stage.graph.require('top').backingLink()?.file).toBe('near');
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

  it('writes to a read-only top and leaves it read-only', async () => {
    const stage = makeStage();
    await makeChain(stage, { seed: 1 });
    await stage.graph.close(stage.graph.require('top'));
    await openImage(stage, 'top', { backing: 'mid', readOnly: true });
    const job = await startStream(stage.jobs, { 'job-id': 's', device: 'top' });
    await job.ended;
    const top = stage.graph.require('top');
    expect([top.readOnly, top.backing, top.backingLink()]).toEqual([true, null, null]);
    expect((await top.check('none')).leaks).toBe(0);
  });

  it('that cannot start leaves a read-only top read-only', async () => {
    const stage = makeStage();
    await makeChain(stage, { seed: 1 });
    await stage.graph.close(stage.graph.require('top'));
    await openImage(stage, 'top', { backing: 'mid', readOnly: true });
    const start = startStream(stage.jobs, { 'job-id': 's', device: 'top', speed: -1 });
    await expect(start).rejects.toThrow("Parameter 'speed' expects a non-negative value");
    expect(stage.graph.require('top').readOnly).toBe(true);
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
    await job.ended;
    expect(stage.trace.slice(4)).toEqual([
      'JSC aborting', 'BLOCK_JOB_CANCELLED', 'JSC concluded', 'JSC null',
    ]);
    expect(firstDifference(await readAll(top), stage.guest.expected)).toBe(-1);
    expect(top.backing?.name).toBe('mid');
    expect(operationRefusal(top, 'stream')).toBeNull();
    await stage.graph.setBacking(top, stage.graph.require('base'));
  });

  it('the filter of another job may be its base, and leaves before or after it', async () => {
    for (const first of ['b', 's']) {
      const stage = await chainStage();
      await createImage(stage, { name: 'target', size: 2 ** 21 });
      await openImage(stage, 'target');
      const backup = await startBackup(stage.jobs, {
        'job-id': 'b',
        device: 'base',
        target: 'target',
        sync: 'none',
        'filter-node-name': 'passing',
      });
      const args = { 'job-id': 's', device: 'top', 'base-node': 'passing' };
      const limited = first === 'b' ? { speed: 65_536 } : {};
      const stream = await startStream(stage.jobs, { ...args, ...limited });
      if (first === 'b') {
        await backup.cancel();
        await backup.ended;
        expect(stage.graph.find('passing')).toBeNull();
        stream.setSpeed(0);
      }
      await stream.ended;
      const top = stage.graph.require('top');
      expect(firstDifference(await readAll(top), stage.guest.expected)).toBe(-1);
      if (first === 's') {
        expect(top.backing?.name).toBe('passing');
        await backup.cancel();
        await backup.ended;
      }
      expect(top.backing?.name).toBe('base');
      expect(top.backingLink()?.file).toBe(stage.graph.require('base').filename);
      await stage.graph.closeAll();
    }
  });

  it('no one may write to a layer that is being copied', async () => {
    const stage = await chainStage();
    const job = await startStream(stage.jobs, { 'job-id': 's', device: 'top', speed: 65_536 });
    await expect(Guest.attach(stage, stage.graph.require('mid'))).rejects.toThrow(
      /^Permission conflict on node 'mid': permissions 'write' are both required/,
    );
    await job.cancel();
    await job.ended;
    await expect(Guest.attach(stage, stage.graph.require('mid'))).resolves.toBeDefined();
  });

  it('cancelled between its creation and its start it leaves nothing behind', async () => {
    const stage = await chainStage();
    const starting = startStream(stage.jobs, { 'job-id': 's', device: 'top' });
    while (stage.jobs.get('s') === null) await Promise.resolve();
    await stage.jobs.require('s').cancel();
    const job = await starting;
    await job.ended;
    expect(stage.trace).not.toContain('BLOCK_JOB_COMPLETED');
    expect(stage.jobs.list()).toEqual([]);
    expect([...stage.graph.nodes].filter((node) => node.driver.kind === 'filter')).toEqual([]);
    expect(operationRefusal(stage.graph.require('top'), 'stream')).toBeNull();
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
    await job.ended;
  });

  it('lanes do the copying, and the data is on them once', async () => {
    let bytes = 0;
    const stage = makeStage({
      lanes: (lanes) => ({
        width: lanes.width,
        warmUp: () => lanes.warmUp(),
        close: () => lanes.close(),
        async run(batch, owner) {
          const results = await lanes.run(batch, owner);
          for (const result of results) bytes += result.bytes;
          return results;
        },
      }),
    });
    await makeChain(stage, { seed: 1 });
    const job = await startStream(stage.jobs, { 'job-id': 's', device: 'top' });
    await job.ended;
    expect(bytes).toBeGreaterThan(0);
    expect(bytes).toBeLessThanOrEqual(2 ** 21);
  });

  it('takes its filter out even when a layer fails to close', async () => {
    const stage = await chainStage();
    const mid = stage.graph.require('mid');
    const job = await startStream(stage.jobs, { 'job-id': 's', device: 'top', speed: 65_536 });
    await turns();
    Object.defineProperty(mid.driverNode, 'close', {
      value: () => Promise.reject(new BlockError('io', 'the disk is gone')),
    });
    await stage.graph.close(mid);
    job.setSpeed(0);
    await job.ended;
    expect(job.info().error).toBeUndefined();
    const names = [...stage.graph.nodes].map((node) => node.name);
    expect(names.filter((name) => stage.graph.find(name)?.driver.kind === 'filter')).toEqual([]);
    expect(names).not.toContain('mid');
  });

  it('makes zero clusters of zeroes between data', async () => {
    const stage = makeStage();
    await createImage(stage, { name: 'base', size: 2 ** 20 });
    const base = await openImage(stage, 'base');
    const guest = await Guest.attach(stage, base);
    const bytes = new Uint8Array(2 ** 20).fill(1);
    bytes.fill(0, 5 * 65_536, 9 * 65_536);
    await guest.write(0, bytes);
    await guest.backend.detach();
    await createImage(stage, { name: 'top', size: 2 ** 20, backing: 'base' });
    const top = await openImage(stage, 'top', { backing: 'base' });
    await (await startStream(stage.jobs, { 'job-id': 's', device: 'top' })).ended;
    expect(firstDifference(await readAll(top), bytes)).toBe(-1);
    expect(await top.blockStatus(5 * 65_536, 2 ** 19, false)).toMatchObject({
      length: 4 * 65_536, zero: true, data: false,
    });
  });

  it('leaves the bitmaps of the top alone: nothing reads differently', async () => {
    const stage = makeStage();
    await makeChain(stage, { seed: 1 });
    const bitmap = addBitmap(stage.graph.require('top'), { name: 'dirty' });
    const job = await startStream(stage.jobs, { 'job-id': 's', device: 'top' });
    await job.ended;
    expect(bitmap.count).toBe(0);
  });

  it('a failed header write fails the job and leaves guest and chain undisturbed', async () => {
    const stage = await chainStage();
    const job = await startStream(stage.jobs, {
      'job-id': 's', device: 'top', 'auto-finalize': false, 'auto-dismiss': false,
    });
    await job.restsOrEnds();
    expect(stage.trace.slice(2)).toEqual(['JSC waiting', 'JSC pending', 'BLOCK_JOB_PENDING']);
    stage.host.faults.add({ operation: 'write', nth: 1, errno: 'EIO', path: 'top.qcow2' });
    await job.finalize();
    expect(stage.trace.slice(5)).toEqual([
      'JSC aborting', 'BLOCK_JOB_COMPLETED', 'JSC concluded',
    ]);
    expect(job.info().error).toMatch(/Input\/output error/);
    const top = stage.graph.require('top');
    expect(top.backing?.name).toBe('mid');
    expect(top.backingLink()?.file).toBe('mid.qcow2');
    await stage.guest.write(0, new Uint8Array(512).fill(0xee));
    expect(firstDifference(await readAll(top), stage.guest.expected)).toBe(-1);
    await job.dismiss();
    expect(stage.jobs.list()).toEqual([]);
  });

  it('on-error=stop pauses on a bad read and goes on where it stopped', async () => {
    const stage = await chainStage();
    stage.host.faults.add({
      operation: 'read', nth: 1, errno: 'EIO', path: 'mid.qcow2', lasting: true,
    });
    const job = await startStream(stage.jobs, {
      'job-id': 's', device: 'top', 'on-error': 'stop',
    });
    await turns(100);
    expect(job.blockInfo()).toMatchObject({ status: 'paused', 'io-status': 'failed' });
    expect(stage.events.find((event) => event.name === 'BLOCK_JOB_ERROR')?.data).toEqual({
      device: 's', operation: 'read', action: 'stop',
    });
    stage.host.faults.clear();
    job.resume();
    await job.ended;
    expect(job.info().error).toBeUndefined();
    const top = stage.graph.require('top');
    expect(firstDifference(await readAll(top), stage.guest.expected)).toBe(-1);
  });

  it('on-error=ignore goes on and fails at the end: nothing is cut off', async () => {
    const stage = await chainStage();
    stage.host.faults.add({ operation: 'read', nth: 1, errno: 'EIO', path: 'mid.qcow2' });
    const job = await startStream(stage.jobs, {
      'job-id': 's', device: 'top', 'on-error': 'ignore',
    });
    await job.ended;
    expect(job.info().error).toBe('Input/output error');
    const top = stage.graph.require('top');
    expect(top.backing?.name).toBe('mid');
    expect(firstDifference(await readAll(top), stage.guest.expected)).toBe(-1);
  });

  it('keeps its speed within 5 %, and never shows less progress than before', async () => {
    const clock = new ManualClock();
    const stage = makeStage({ host: new MemoryHost({ clock }) });
    await createImage(stage, { name: 'base', size: 2 ** 24 });
    const base = await openImage(stage, 'base');
    const writer = await Guest.attach(stage, base);
    await writer.backend.write(0, new Uint8Array(2 ** 24).fill(7));
    await writer.backend.detach();
    await createImage(stage, { name: 'top', size: 2 ** 24, backing: 'base' });
    await openImage(stage, 'top', { backing: 'base' });
    const speed = 2 ** 21;
    const job = await startStream(stage.jobs, { 'job-id': 's', device: 'top', speed });
    let last = 0;
    while (job.status === 'running') {
      await turns(5);
      const { offset } = job.blockInfo();
      expect(offset).toBeGreaterThanOrEqual(last);
      last = offset;
      clock.advanceToNext();
    }
    await job.ended;
    const rate = 2 ** 24 / (clock.now() / 1000);
    expect(Math.abs(rate - speed) / speed).toBeLessThan(0.05);
  });
});
