// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from 'vitest';
import { operationRefusal } from '../../../src/block/index.js';
import { MemoryHost } from '../../../src/host/index.js';
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
import { forEachSeed } from '../../helpers/seeds.js';
import { startBackup } from '../../helpers/start-backup.js';

const SIZE = 2 ** 21;
const BACKUP = { 'job-id': 'b', device: 'top', target: 'target', sync: 'full' } as const;

interface BackupStage extends Stage {
  readonly guest: Guest;
  /** The source at the start of the test. */
  readonly before: Uint8Array;
}

async function backupStage(targetSize = SIZE): Promise<BackupStage> {
  const stage = makeStage();
  const nodes = await makeChain(stage, { seed: 2 });
  await createImage(stage, { name: 'target', size: targetSize });
  await openImage(stage, 'target');
  const guest = await Guest.attach(stage, nodes['top'] as never);
  return { ...stage, guest, before: guest.expected.slice() };
}

describe('blockdev-backup', () => {
  it('copies everything, and its filter leaves', async () => {
    const stage = await backupStage();
    const job = await startBackup(stage.jobs, BACKUP);
    expect(stage.trace.slice(0, 4)).toEqual([
      'JSC created', 'JSC running', 'JSC paused', 'JSC running',
    ]);
    await job.ended;
    expect(stage.trace.slice(4)).toEqual([
      'JSC waiting', 'JSC pending', 'BLOCK_JOB_COMPLETED', 'JSC concluded', 'JSC null',
    ]);
    const target = stage.graph.require('target');
    expect(firstDifference(await readAll(target), stage.before)).toBe(-1);
    expect((await target.check('none')).corruptions).toBe(0);
    expect([...stage.graph.nodes].filter((node) => node.driver.kind === 'filter')).toEqual([]);
  });

  it('keeps the moment of its start, whatever the guest writes meanwhile', async () => {
    const stage = await backupStage();
    const job = await startBackup(stage.jobs, { ...BACKUP, speed: 65_536 });
    await turns();
    for (let offset = 0; offset < SIZE; offset += 3 * 65_536) {
      await stage.guest.write(offset, new Uint8Array(4096).fill(0xee));
    }
    job.setSpeed(0);
    await job.ended;
    const target = stage.graph.require('target');
    expect(firstDifference(await readAll(target), stage.before)).toBe(-1);
    const source = await readAll(stage.graph.require('top'));
    expect(firstDifference(source, stage.guest.expected)).toBe(-1);
  });

  it('backs up a source that is read-only', async () => {
    const stage = makeStage();
    await makeChain(stage, { seed: 2 });
    await stage.graph.close(stage.graph.require('top'));
    const source = await openImage(stage, 'top', { backing: 'mid', readOnly: true });
    await createImage(stage, { name: 'target', size: SIZE });
    const target = await openImage(stage, 'target');
    const job = await startBackup(stage.jobs, BACKUP);
    await job.ended;
    expect(job.info().error).toBeUndefined();
    expect(firstDifference(await readAll(target), await readAll(source))).toBe(-1);
  });

  it('compresses where the target can', async () => {
    const stage = await backupStage();
    const job = await startBackup(stage.jobs, { ...BACKUP, compress: true });
    await job.ended;
    const target = stage.graph.require('target');
    expect(firstDifference(await readAll(target), stage.before)).toBe(-1);
    const { compressedClusters, corruptions } = await target.check('none');
    expect(corruptions).toBe(0);
    expect(compressedClusters).toBeGreaterThan(0);
  });

  for (const clusterSize of [4096, 131_072]) {
    it(`compresses each cluster of ${clusterSize} bytes by itself`, async () => {
      const stage = await backupStage();
      await createImage(stage, { name: 'packed', size: SIZE, clusterSize });
      const target = await openImage(stage, 'packed');
      const perf = { 'x-perf': { 'min-cluster-size': 2 ** 18 } };
      const args = { ...BACKUP, ...perf, target: 'packed', compress: true };
      await (await startBackup(stage.jobs, args)).ended;
      expect(firstDifference(await readAll(target), stage.before)).toBe(-1);
      const { compressedClusters, corruptions } = await target.check('none');
      expect(corruptions).toBe(0);
      expect(compressedClusters).toBeGreaterThan(0);
    });
  }

  it('copies as much at once before a guest writes as min-cluster-size asks for', async () => {
    const stage = await backupStage();
    const perf = { 'x-perf': { 'min-cluster-size': 2 ** 18 } };
    const job = await startBackup(stage.jobs, { ...BACKUP, ...perf, sync: 'none' });
    await turns();
    await stage.guest.write(2 ** 18 + 512, new Uint8Array(512).fill(0xee));
    await job.cancel();
    await job.ended;
    const copied = await readAll(stage.graph.require('target'));
    const wanted = new Uint8Array(SIZE);
    wanted.set(stage.before.subarray(2 ** 18, 2 ** 19), 2 ** 18);
    expect(firstDifference(copied, wanted)).toBe(-1);
  });

  it('sync=top copies only what the top layer holds', async () => {
    const stage = await backupStage();
    const job = await startBackup(stage.jobs, { ...BACKUP, sync: 'top' });
    await job.ended;
    const copied = await readAll(stage.graph.require('target'));
    const { offset, len } = job.blockInfo();
    expect(offset).toBe(len);
    expect(len).toBeLessThan(SIZE);
    for (let at = 0; at < SIZE; at += 65_536) {
      const status = await stage.graph.require('top').blockStatus(at, 65_536, false);
      const wanted = status.allocated ? stage.before : new Uint8Array(SIZE);
      const part = copied.subarray(at, at + 65_536);
      expect(firstDifference(part, wanted.subarray(at, at + 65_536))).toBe(-1);
    }
  });

  it('sync=none copies what guests overwrite, until it is cancelled', async () => {
    const stage = await backupStage();
    const job = await startBackup(stage.jobs, { ...BACKUP, sync: 'none' });
    await turns();
    await stage.guest.write(512, new Uint8Array(512).fill(0xee));
    await job.cancel();
    await job.ended;
    const copied = await readAll(stage.graph.require('target'));
    expect(firstDifference(copied.subarray(0, 65_536), stage.before.subarray(0, 65_536))).toBe(-1);
    expect(copied.subarray(65_536).every((byte) => byte === 0)).toBe(true);
  });

  it('sync=none into an overlay of the source shows the moment while guests write', async () => {
    const stage = await backupStage();
    await createImage(stage, { name: 'fleece', size: SIZE, backing: 'top' });
    await openImage(stage, 'fleece', { backing: 'top' });
    const job = await startBackup(stage.jobs, { ...BACKUP, target: 'fleece', sync: 'none' });
    await turns();
    await stage.guest.write(512, new Uint8Array(100_000).fill(0xee));
    const shown = await readAll(stage.graph.require('fleece'));
    expect(firstDifference(shown, stage.before)).toBe(-1);
    await job.cancel();
    await job.ended;
    const source = await readAll(stage.graph.require('top'));
    expect(firstDifference(source, stage.guest.expected)).toBe(-1);
  });

  it.each(['none', 'full'] as const)(
    'sync=%s into an overlay of the source shows the moment to reads in flight, too',
    async (sync) => {
      await forEachSeed(12, async (seed) => {
        const stage = makeStage({ host: new MemoryHost({ seed, laterChance: 0.8 }) });
        const nodes = await makeChain(stage, { seed, size: 2 ** 19 });
        const guest = await Guest.attach(stage, nodes['top'] as never);
        const before = guest.expected.slice();
        await createImage(stage, { name: 'fleece', size: 2 ** 19, backing: 'top' });
        const fleece = await openImage(stage, 'fleece', { backing: 'top' });
        const job = await startBackup(stage.jobs, { ...BACKUP, target: 'fleece', sync });
        for (let offset = 0; offset < before.length; offset += 65_536) {
          const reading = readAll(fleece);
          await guest.write(offset, new Uint8Array(65_536).fill(0xee));
          expect(firstDifference(await reading, before), `seed ${seed}`).toBe(-1);
        }
        if (sync === 'none') await job.cancel();
        else await job.ended;
      });
    },
  );

  it('a cancel leaves no filter and the guest its data', async () => {
    const stage = await backupStage();
    const job = await startBackup(stage.jobs, { ...BACKUP, speed: 65_536, 'auto-dismiss': false });
    await turns();
    await stage.guest.write(0, new Uint8Array(512).fill(0xee));
    await job.cancel();
    await job.ended;
    expect(stage.trace.slice(4)).toEqual(['JSC aborting', 'BLOCK_JOB_CANCELLED', 'JSC concluded']);
    expect(job.info().error).toBe('Operation canceled');
    expect([...stage.graph.nodes].filter((node) => node.driver.kind === 'filter')).toEqual([]);
    const source = await readAll(stage.graph.require('top'));
    expect(firstDifference(source, stage.guest.expected)).toBe(-1);
  });

  const refusals: readonly (readonly [object, string])[] = [
    [{ device: 'nope' }, "Cannot find device='nope' nor node-name='nope'"],
    [{ target: 'nope' }, "Cannot find device='nope' nor node-name='nope'"],
    [{ target: 'top' }, 'Source and target cannot be the same'],
    [{ sync: 'incremental' }, "must provide a valid bitmap name for 'incremental' sync mode"],
    [{ sync: 'bitmap' }, "must provide a valid bitmap name for 'bitmap' sync mode"],
    [{ bitmap: 'x' }, "Bitmap 'x' could not be found"],
    [{ 'bitmap-mode': 'always' }, 'Cannot specify bitmap sync mode without a bitmap'],
    [{ 'x-perf': { 'max-workers': 0 } }, 'max-workers must be between 1 and 2147483647'],
    [{ 'x-perf': { 'max-chunk': 4096 } },
      'Required max-chunk (4096) is less than backup cluster size (65536)'],
    [{ 'x-perf': { 'max-chunk': -1 } },
      'max-chunk must be zero (which means no limit) or positive'],
    [{ 'x-perf': { 'min-cluster-size': 100_000 } }, 'min-cluster-size needs to be a power of 2'],
    [{ 'x-perf': { 'min-cluster-size': 2 ** 30 } },
      'min-cluster-size too large: 1073741824 > 67108864'],
    [{ 'x-perf': { 'min-cluster-size': 2 ** 20, 'max-chunk': 2 ** 19 } },
      'Required max-chunk (524288) is less than backup cluster size (1048576)'],
    [{ 'job-id': 'a b' }, "Invalid job ID 'a b'"],
  ];
  for (const [args, message] of refusals) {
    it(`refuses ${JSON.stringify(args)} without a trace`, async () => {
      const stage = await backupStage();
      await expect(startBackup(stage.jobs, { ...BACKUP, ...args })).rejects.toThrow(message);
      expect(stage.trace).toEqual([]);
    });
  }

  it('refuses a target of another size and one that cannot compress', async () => {
    const stage = await backupStage(SIZE / 2);
    await expect(startBackup(stage.jobs, BACKUP)).rejects.toThrow(
      'Source and target image have different sizes',
    );
    stage.host.putFile('plain.raw', new Uint8Array(0), SIZE);
    await openRaw(stage, 'plain');
    const compressed = startBackup(stage.jobs, { ...BACKUP, target: 'plain', compress: true });
    await expect(compressed).rejects.toThrow('Compression is not supported for this drive');
  });

  it('refuses the backing file of its source as target, before there is a job', async () => {
    const stage = await backupStage();
    await expect(startBackup(stage.jobs, { ...BACKUP, target: 'mid' })).rejects.toThrow(
      /^Could not replace node: Permission conflict on node 'mid': permissions 'write' are both /,
    );
    expect(stage.trace).toEqual([]);
    expect([...stage.graph.nodes].filter((node) => node.driver.kind === 'filter')).toEqual([]);
  });

  it('keeps its target busy, but not its source', async () => {
    const stage = await backupStage();
    const job = await startBackup(stage.jobs, { ...BACKUP, speed: 65_536 });
    await turns();
    await expect(startBackup(stage.jobs, { ...BACKUP, 'job-id': 'c' })).rejects.toThrow(
      "Node 'target' is busy: block device is in use by block job: backup",
    );
    expect(operationRefusal(stage.graph.require('top'), 'stream')).toBeNull();
    await job.cancel();
    await job.ended;
  });

  it('writes to a raw target, holes stay unwritten', async () => {
    const stage = await backupStage();
    stage.host.putFile('plain.raw', new Uint8Array(0), SIZE);
    await openRaw(stage, 'plain');
    const job = await startBackup(stage.jobs, { ...BACKUP, target: 'plain' });
    await job.ended;
    expect(firstDifference(stage.host.fileContents('plain.raw'), stage.before)).toBe(-1);
  });

  it('a full target fails the job by default, and pauses it with enospc', async () => {
    const stage = await backupStage();
    stage.host.faults.add({
      operation: 'write', nth: 1, errno: 'ENOSPC', path: 'target.qcow2', lasting: true,
    });
    const failing = await startBackup(stage.jobs, BACKUP);
    await failing.ended;
    expect(stage.trace.slice(4)).toEqual([
      'BLOCK_JOB_ERROR', 'JSC aborting', 'BLOCK_JOB_COMPLETED', 'JSC concluded', 'JSC null',
    ]);
    expect(failing.info().error).toBe('No space left on device');
    stage.trace.length = 0;
    const stopped = await startBackup(stage.jobs, { ...BACKUP, 'on-target-error': 'enospc' });
    await turns(100);
    expect(stopped.blockInfo()).toMatchObject({ status: 'paused', 'io-status': 'nospace' });
    expect(stage.events.findLast((event) => event.name === 'BLOCK_JOB_ERROR')?.data).toEqual({
      device: 'b', operation: 'write', action: 'stop',
    });
    stage.host.faults.clear();
    stopped.resume();
    await stopped.ended;
    expect(stage.trace).toContain('BLOCK_JOB_COMPLETED');
    const target = stage.graph.require('target');
    expect(firstDifference(await readAll(target), stage.before)).toBe(-1);
  });
});
