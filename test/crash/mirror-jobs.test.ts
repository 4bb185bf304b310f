// SPDX-License-Identifier: Apache-2.0
// Commits and mirrors: power cuts at every write, faults at every call and under every policy,
// cancels at every turn.
import { describe, expect, it } from 'vitest';
import { ManualClock, SeededRandom } from '../../src/base/index.js';
import { skipFilters } from '../../src/block/copy/index.js';
import { CrashDisk, MemoryHost } from '../../src/host/index.js';
import type { HostOperation } from '../../src/host/index.js';
import { startCommit, startMirror } from '../../src/jobs/index.js';
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

const SIZE = 384 * 1024;
const CLUSTERS = [65_536, 4096, 16_384];

type Start = (stage: Stage, policy?: 'report' | 'ignore' | 'stop') => Promise<Job>;

const below: Start = (stage, policy = 'report') =>
  startCommit(stage.jobs, {
    'job-id': 'c', device: 'top', 'top-node': 'mid', 'on-error': policy,
  });
const active: Start = (stage, policy = 'report') =>
  startCommit(stage.jobs, { 'job-id': 'a', device: 'top', 'on-error': policy });
const mirrorAs =
  (mode: 'background' | 'write-blocking'): Start =>
  (stage, policy = 'report') =>
    startMirror(stage.jobs, {
      'job-id': 'm', device: 'top', target: 'target', sync: 'full', 'copy-mode': mode,
      'on-source-error': policy, 'on-target-error': policy,
    });
const JOBS = [
  ['a commit', below],
  ['an active commit', active],
  ['a mirror', mirrorAs('background')],
  ['a write-blocking mirror', mirrorAs('write-blocking')],
] as const;

async function stageOn(host: MemoryHost, seed = 5): Promise<Stage & { readonly guest: Guest }> {
  const stage = makeStage({ host });
  await openPreparedChain(stage, { seed, size: SIZE, clusterSizes: CLUSTERS, scribbles: 5 });
  await createImage(stage, { name: 'target', size: SIZE });
  await openImage(stage, 'target');
  const guest = await Guest.attach(stage, stage.graph.require('top'));
  for (const name of ['base', 'mid', 'top', 'target']) await stage.graph.require(name).flush();
  return { ...stage, guest };
}

/** The image as a newcomer finds it: opened by its own header; checks it, gives what it reads. */
async function inspect(host: MemoryHost, name: string): Promise<Uint8Array> {
  const graph = makeGraph(host);
  const node = await graph.openImage(`${name}.qcow2`, 'qcow2', true);
  expect((await node.check('none')).corruptions).toBe(0);
  const bytes = await readAll(node);
  await graph.close(node);
  return bytes;
}

function bystander(host: MemoryHost): MemoryHost {
  const copy = new MemoryHost();
  for (const path of host.paths()) copy.putFile(path, host.fileContents(path));
  return copy;
}

function expectNothingLeft(stage: Stage): void {
  const { graph, jobs } = stage;
  expect([...graph.nodes].filter((node) => node.driver.kind === 'filter')).toEqual([]);
  for (const node of graph.nodes) {
    const edges = [...node.children.values(), ...node.parents];
    expect(edges.filter(({ frozenBy, parent }) => frozenBy !== null || parent.job !== undefined))
      .toEqual([]);
  }
  expect(jobs.list()).toEqual([]);
}

/** Lets the job go on to its end, completing it when it is ready and resuming it when stopped. */
async function settle({ host }: Stage, job: Job, resume = false): Promise<void> {
  for (let turn = 0; turn < 5000 && !['concluded', 'null'].includes(job.status); turn += 1) {
    if (job.status === 'ready') job.complete();
    if (resume && ['paused', 'standby'].includes(job.status)) job.resume();
    await turns(1);
    // What is ignored is tried again after a while.
    if (host.clock instanceof ManualClock) host.clock.advance(100);
  }
  expect(['concluded', 'null']).toContain(job.status);
}

/** Where the guest's disk is by now. */
function diskOf(guest: Guest): string {
  return skipFilters(guest.backend.node).name;
}

describe('power cuts', () => {
  for (const [name, start] of JOBS) {
    it(`at any write of ${name} the view is the same, with leaks at most`, async () => {
      let cuts = 0;
      await forEachSeed(4, async (seed) => {
        const disk = new CrashDisk({ seed });
        const stage = await stageOn(disk, seed);
        const random = new SeededRandom(seed);
        const survivors: MemoryHost[] = [];
        disk.onWrite = () => {
          for (let cut = 0; cut < 2; cut += 1) survivors.push(disk.afterPowerLoss(random));
        };
        const job = await start(stage);
        await settle(stage, job);
        expect(job.info().error).toBeUndefined();
        survivors.push(disk.afterPowerLoss(random), disk.durable());
        cuts += survivors.length;
        for (const survivor of survivors) {
          const view = await inspect(survivor, 'top');
          expect(firstDifference(view, stage.guest.expected)).toBe(-1);
        }
        // Concluded means on disk: what the guest stands on now is all there.
        const last = await inspect(disk.durable(), diskOf(stage.guest));
        expect(firstDifference(last, stage.guest.expected)).toBe(-1);
      });
      expect(cuts).toBeGreaterThan(40);
    });
  }

  it('a concluded commit has its link on disk', async () => {
    const disk = new CrashDisk({ seed: 9 });
    const stage = await stageOn(disk);
    await (await below(stage)).ended;
    const graph = makeGraph(disk.durable());
    const top = await graph.openImage('top.qcow2', 'qcow2', true);
    expect(top.backingLink()).toEqual({ file: 'base.qcow2', format: 'qcow2' });
    expect(firstDifference(await readAll(top), stage.guest.expected)).toBe(-1);
  });

  it('flushed guest writes survive a cut before and after the pivot', async () => {
    await forEachSeed(runs(2, 8), async (seed) => {
      const disk = new CrashDisk({ seed });
      const stage = await stageOn(disk);
      const { guest } = stage;
      const random = new SeededRandom(seed);
      const job = await JOBS[1 + (seed % 3)]?.[1](stage);
      for (let turn = 0; turn < 60; turn += 1) {
        await guest.act(random);
        await guest.backend.flush();
        const view = await inspect(disk.afterPowerLoss(random), diskOf(guest));
        expect(firstDifference(view, guest.expected)).toBe(-1);
        if (turn > 20 && job?.status === 'ready') job.complete();
        await turns(1);
      }
      await job?.ended;
      expect(diskOf(guest)).not.toBe('top');
    });
  });
});

describe('faults', () => {
  const operations: readonly HostOperation[] = ['read', 'write', 'write-zeroes', 'sync'];
  for (const [name, start] of JOBS) {
    for (const operation of operations) {
      it(`${name}: whichever ${operation} fails, the guest keeps its view`, async () => {
        for (let nth = 1; nth <= 400; nth += nth < 12 ? 1 : 7) {
          const stage = await stageOn(new MemoryHost({ seed: nth }));
          const { guest, host } = stage;
          const calls = host.faults.count(operation);
          host.faults.add({ operation, nth, errno: 'EIO' });
          const job = await start(stage).catch(() => null);
          if (job !== null) await settle(stage, job);
          const reached = host.faults.count(operation) - calls >= nth;
          host.faults.clear();
          expectNothingLeft(stage);
          const view = await readAll(guest.backend.node);
          expect(firstDifference(view, guest.expected)).toBe(-1);
          const seen = await inspect(bystander(host), diskOf(guest));
          expect(firstDifference(seen, guest.expected)).toBe(-1);
          if (job?.failed === true && name !== 'a commit') expect(diskOf(guest)).toBe('top');
          if (!reached) {
            expect(job?.failed).toBe(false);
            break;
          }
        }
      });
    }

    for (const policy of ['stop', 'ignore'] as const) {
      it(`${name} under '${policy}' gets over any failing write`, async () => {
        for (let nth = 1; nth <= 120; nth += nth < 8 ? 1 : 9) {
          const stage = await stageOn(new MemoryHost({ seed: nth }));
          const { guest, host } = stage;
          const job = await start(stage, policy);
          const calls = host.faults.count('write');
          host.faults.add({ operation: 'write', nth, errno: 'ENOSPC' });
          await settle(stage, job, true);
          const reached = host.faults.count('write') - calls >= nth;
          host.faults.clear();
          const said = stage.events.filter((event) => event.name === 'BLOCK_JOB_ERROR');
          for (const { data } of said) {
            expect(data).toMatchObject({ operation: 'write', action: policy });
          }
          if (said.length > 0 && !job.failed) {
            const view = await readAll(guest.backend.node);
            expect(firstDifference(view, guest.expected)).toBe(-1);
          }
          expectNothingLeft(stage);
          if (!reached) break;
        }
      });
    }
  }
});

describe('cancels', () => {
  for (const [name, start] of JOBS) {
    it(`${name}: at every turn nothing is left behind and no guest write is lost`, async () => {
      for (let turn = 0; turn < 300; turn += turn < 40 ? runs(3, 1) : 13) {
        const stage = await stageOn(new MemoryHost({ seed: turn }));
        const { guest } = stage;
        const random = new SeededRandom(turn);
        const job = await start(stage);
        for (let count = 0; count < turn; count += 1) {
          if (turn % 2 === 1 && job.status === 'ready') job.complete();
          await Promise.resolve();
          if (count % 8 === 0) await turns(1);
        }
        const writing = guest.act(random);
        if (!['null', 'aborting', 'concluded'].includes(job.status)) await job.cancel();
        await writing;
        await job.ended;
        expectNothingLeft(stage);
        const view = await readAll(guest.backend.node);
        expect(firstDifference(view, guest.expected)).toBe(-1);
        await guest.backend.flush();
        const seen = await inspect(bystander(stage.host), diskOf(guest));
        expect(firstDifference(seen, guest.expected)).toBe(-1);
        if (stage.trace.includes('BLOCK_JOB_COMPLETED') && turn > 150) break;
      }
    });
  }
});
