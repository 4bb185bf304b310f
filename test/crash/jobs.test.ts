// SPDX-License-Identifier: Apache-2.0
// Power cuts at every write, faults at every call, cancels at every turn: what jobs leave behind.
import { describe, expect, it } from 'vitest';
import { SeededRandom } from '../../src/base/index.js';
import { operationRefusal } from '../../src/block/index.js';
import { CrashDisk, MemoryHost } from '../../src/host/index.js';
import type { HostOperation } from '../../src/host/index.js';
import { startStream } from '../../src/jobs/index.js';
import type { Job } from '../../src/jobs/index.js';
import {
  createImage,
  firstDifference,
  Guest,
  openPreparedChain,
  makeGraph,
  makeStage,
  openImage,
  readAll,
  turns,
} from '../helpers/job-stage.js';
import type { Stage } from '../helpers/job-stage.js';
import { forEachSeed, runs } from '../helpers/seeds.js';
import { startBackup } from '../helpers/start-backup.js';

const SIZE = 384 * 1024;
const CLUSTERS = [65_536, 4096, 16_384];

async function stageOn(host: MemoryHost, seed = 5): Promise<Stage & { readonly guest: Guest }> {
  const stage = makeStage({ host });
  await openPreparedChain(stage, { seed, size: SIZE, clusterSizes: CLUSTERS, scribbles: 5 });
  await createImage(stage, { name: 'target', size: SIZE });
  await openImage(stage, 'target');
  const guest = await Guest.attach(stage, stage.graph.require('top'));
  for (const name of ['base', 'mid', 'top', 'target']) await stage.graph.require(name).flush();
  return { ...stage, guest };
}

const stream = (stage: Stage): Promise<Job> =>
  startStream(stage.jobs, { 'job-id': 's', device: 'top', 'base-node': 'base' });
const streamAll = (stage: Stage): Promise<Job> =>
  startStream(stage.jobs, { 'job-id': 's', device: 'top' });
const backup = (stage: Stage): Promise<Job> =>
  startBackup(stage.jobs, { 'job-id': 'b', device: 'top', target: 'target', sync: 'full' });

/** The image as a newcomer finds it: opened by its own header; checks it, gives what it reads. */
async function inspect(host: MemoryHost, name: string): Promise<Uint8Array> {
  const graph = makeGraph(host);
  const node = await graph.openImage(`${name}.qcow2`, 'qcow2', true);
  expect((await node.check('none')).corruptions).toBe(0);
  const bytes = await readAll(node);
  await graph.close(node);
  return bytes;
}

/** The files as they are now, without their users. */
function bystander(host: MemoryHost): MemoryHost {
  const copy = new MemoryHost();
  for (const path of host.paths()) copy.putFile(path, host.fileContents(path));
  return copy;
}

function expectNothingLeft(stage: Stage): void {
  expect([...stage.graph.nodes].filter((node) => node.driver.kind === 'filter')).toEqual([]);
  const top = stage.graph.require('top');
  expect([...top.children.values()].filter((child) => child.frozenBy !== null)).toEqual([]);
  expect(operationRefusal(top, 'stream')).toBeNull();
  expect(stage.jobs.list()).toEqual([]);
}

describe('power cuts', () => {
  for (const [name, start] of [
    ['with a base', stream],
    ['of the whole chain', streamAll],
  ] as const) {
    it(`at any write of a stream ${name} the view is the same, with leaks at most`, async () => {
      await forEachSeed(runs(4, 8), async (seed) => {
        const disk = new CrashDisk({ seed });
        const stage = await stageOn(disk, seed);
        const random = new SeededRandom(seed);
        const survivors: MemoryHost[] = [];
        disk.onWrite = () => {
          for (let cut = 0; cut < 3; cut += 1) survivors.push(disk.afterPowerLoss(random));
        };
        const job = await start(stage);
        await job.ended;
        survivors.push(disk.afterPowerLoss(random), disk.durable());
        expect(survivors.length).toBeGreaterThan(10);
        for (const survivor of survivors) {
          const view = await inspect(survivor, 'top');
          expect(firstDifference(view, stage.guest.expected)).toBe(-1);
        }
      });
    });
  }

  it('a stream that is concluded is on disk: the header names the new base', async () => {
    const disk = new CrashDisk({ seed: 9 });
    const stage = await stageOn(disk);
    await (await stream(stage)).ended;
    const graph = makeGraph(disk.durable());
    const top = await graph.openImage('top.qcow2', 'qcow2', true);
    expect(top.backingLink()).toEqual({ file: 'base.qcow2', format: 'qcow2' });
    expect(firstDifference(await readAll(top), stage.guest.expected)).toBe(-1);
  });

  it('guest writes that were flushed during a stream survive, others are old or new', async () => {
    await forEachSeed(4, async (seed) => {
      const disk = new CrashDisk({ seed });
      const stage = await stageOn(disk);
      const random = new SeededRandom(seed);
      const job = await streamAll(stage);
      let running = true;
      void job.ended.then(() => (running = false));
      while (running) {
        await stage.guest.act(random);
        await stage.guest.backend.flush();
        const view = await inspect(disk.afterPowerLoss(random), 'top');
        expect(firstDifference(view, stage.guest.expected)).toBe(-1);
        await turns(1);
      }
    });
  });

  it('the target of a concluded backup is complete on disk', async () => {
    await forEachSeed(4, async (seed) => {
      const disk = new CrashDisk({ seed });
      const stage = await stageOn(disk);
      const before = stage.guest.expected.slice();
      const random = new SeededRandom(seed);
      const job = await backup(stage);
      let running = true;
      void job.ended.then(() => (running = false));
      while (running) {
        await stage.guest.act(random);
        await turns(1);
      }
      expect(firstDifference(await inspect(disk.durable(), 'target'), before)).toBe(-1);
    });
  });

  it('at any write of a backup its target passes the check', async () => {
    const disk = new CrashDisk({ seed: 3 });
    const stage = await stageOn(disk);
    const random = new SeededRandom(3);
    const survivors: MemoryHost[] = [];
    disk.onWrite = () => void survivors.push(disk.afterPowerLoss(random));
    await (await backup(stage)).ended;
    for (const survivor of survivors) await inspect(survivor, 'target');
  });
});

describe('faults', () => {
  const operations: readonly HostOperation[] = ['read', 'write', 'write-zeroes', 'sync'];
  for (const [name, start] of [['stream', streamAll], ['backup', backup]] as const) {
    for (const operation of operations) {
      it(`${name}: whichever ${operation} fails, the source keeps its view`, async () => {
        for (let nth = 1; nth <= 400; nth += nth < 12 ? 1 : 7) {
          const stage = await stageOn(new MemoryHost({ seed: nth }));
          const { guest, host } = stage;
          const calls = host.faults.count(operation);
          host.faults.add({ operation, nth, errno: 'EIO' });
          const job = await start(stage).catch(() => null);
          await job?.ended;
          const reached = host.faults.count(operation) - calls >= nth;
          host.faults.clear();
          expectNothingLeft(stage);
          const view = await readAll(stage.graph.require('top'));
          expect(firstDifference(view, guest.expected)).toBe(-1);
          const seen = await inspect(bystander(host), 'top');
          expect(firstDifference(seen, guest.expected)).toBe(-1);
          if (name === 'backup' && job?.failed === false) {
            const copied = await readAll(stage.graph.require('target'));
            expect(firstDifference(copied, guest.expected)).toBe(-1);
          }
          if (!reached) {
            expect(job?.failed).toBe(false);
            break;
          }
        }
      });
    }
  }
});

describe('cancels', () => {
  for (const [name, start] of [['stream', stream], ['backup', backup]] as const) {
    it(`${name}: at every turn nothing is left behind and no guest write is lost`, async () => {
      for (let turn = 0; turn < 400; turn += turn < 60 ? runs(3, 1) : 9) {
        const stage = await stageOn(new MemoryHost({ seed: turn }));
        const { guest } = stage;
        const random = new SeededRandom(turn);
        const job = await start(stage);
        for (let count = 0; count < turn; count += 1) await Promise.resolve();
        const writing = guest.act(random);
        if (job.status !== 'null' && job.status !== 'aborting' && job.status !== 'concluded') {
          await job.cancel();
        }
        await writing;
        await job.ended;
        expectNothingLeft(stage);
        const view = await readAll(stage.graph.require('top'));
        expect(firstDifference(view, guest.expected)).toBe(-1);
        await guest.backend.flush();
        const seen = await inspect(bystander(stage.host), 'top');
        expect(firstDifference(seen, guest.expected)).toBe(-1);
        if (stage.trace.includes('BLOCK_JOB_COMPLETED') && turn > 200) break;
      }
    });
  }
});
