// SPDX-License-Identifier: Apache-2.0
// One daemon with two monitors, hundreds of jobs at a time and thousands one after another, of
// every kind and ending every way: its memory stays bounded, and nothing of them stays.
// BLOCKWRIGHT_CAMPAIGN plays twenty times as many short ones.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { QmpClient } from '../../src/client/index.js';
import { MemoryHost } from '../../src/host/index.js';
import { systemClock } from '../../src/base/index.js';
import type { Job } from '../../src/jobs/index.js';
import { startOwnDaemon } from '../helpers/own-daemon.js';
import type { OwnDaemon } from '../helpers/own-daemon.js';
import { runs } from '../helpers/seeds.js';

const PAUSED_JOBS = runs(200, 500);
const SHORT_JOBS = runs(200, 6000);
const MIB = 2 ** 20;

type Arguments = Readonly<Record<string, unknown>>;
type Command = readonly [string, Arguments];

setFlagsFromString('--expose-gc');
const collect = runInNewContext('gc') as () => void;

async function usedMiB(): Promise<number> {
  for (let turn = 0; turn < 5; turn += 1) {
    await new Promise((resolve) => void setImmediate(resolve));
  }
  collect();
  const { heapUsed, external } = process.memoryUsage();
  return (heapUsed + external) / MIB;
}

const id = { 'job-id': 'short' } as const;
const both = { device: 'source', target: 'target', sync: 'full' } as const;
const bits = { bitmap: 'changes', 'bitmap-mode': 'always' } as const;

/** Jobs that are over in a moment, and two that are refused. */
const SHORT: readonly Command[] = [
  ['blockdev-backup', { ...id, ...both, ...bits }],
  ['blockdev-backup', { ...id, ...both, sync: 'incremental', bitmap: 'changes' }],
  ['blockdev-mirror', { ...id, ...both }],
  ['blockdev-mirror', { ...id, ...both, 'copy-mode': 'write-blocking', granularity: 65_536 }],
  ['block-stream', { ...id, device: 'source' }],
  ['blockdev-create', { ...id, options: { driver: 'qcow2', file: 'blank', size: MIB } }],
  ['blockdev-backup', { ...id, ...both, target: 'source' }],
  ['blockdev-backup', { ...id, ...both, bitmap: 'nothing', 'bitmap-mode': 'always' }],
  [
    'transaction',
    {
      actions: [
        { type: 'blockdev-backup', data: { ...id, ...both, ...bits } },
        { type: 'blockdev-backup', data: { ...both, 'job-id': 'other', device: 'source1',
          target: 'target1' } },
      ],
      properties: { 'completion-mode': 'grouped' },
    },
  ],
];

describe('a daemon with many jobs', () => {
  let folder = '';
  let daemon: OwnDaemon;
  let client: QmpClient;
  let other: QmpClient;
  const run = (name: string, args: Arguments = {}): Promise<unknown> =>
    (client.execute as (name: string, args: object) => Promise<unknown>)(name, args);

  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'many-'));
    const host = new MemoryHost({ clock: systemClock });
    host.putFile('blank', new Uint8Array(0));
    daemon = await startOwnDaemon(folder, host);
    client = await QmpClient.over(await daemon.connect());
    other = await QmpClient.over(await daemon.connect());
    await run('blockdev-add', { driver: 'file', 'node-name': 'blank', filename: 'blank' });
    for (const name of ['source', 'target', 'source1', 'target1']) await addNull(name);
    await run('block-dirty-bitmap-add', { node: 'source', name: 'changes' });
  });
  afterAll(async () => {
    await client.close();
    await other.close();
    await daemon[Symbol.asyncDispose]();
    rmSync(folder, { recursive: true, force: true });
  });

  const addNull = (name: string): Promise<unknown> =>
    run('blockdev-add', {
      driver: 'null-co', 'node-name': name, size: 16 * MIB, 'read-zeroes': true,
    });
  const nodeCount = (): number => [...daemon.engine.graph.nodes].length;

  it(`${PAUSED_JOBS} paused jobs are small, and are gone once they are cancelled`, async () => {
    for (let index = 0; index < PAUSED_JOBS; index += 1) {
      await addNull(`from${index}`);
      await addNull(`to${index}`);
    }
    const nodes = nodeCount();
    const before = await usedMiB();
    for (let index = 0; index < PAUSED_JOBS; index += 1) {
      const name = `job${index}`;
      const ends = { device: `from${index}`, target: `to${index}` };
      const sync = { sync: 'none', speed: 1 };
      const verb = index % 2 === 0 ? 'blockdev-backup' : 'blockdev-mirror';
      await run(verb, { 'job-id': name, ...ends, ...sync });
      await run('job-pause', { id: name });
    }
    const jobs = await client.execute('query-jobs');
    expect(jobs).toHaveLength(PAUSED_JOBS);
    expect(new Set(jobs.map(({ status }) => status))).toEqual(new Set(['paused', 'standby']));
    expect((await usedMiB()) - before).toBeLessThan(PAUSED_JOBS / 10);
    for (let index = 0; index < PAUSED_JOBS; index += 1) {
      await run('job-cancel', { id: `job${index}` });
    }
    await Promise.all(daemon.engine.jobs.list().map((job) => job.ended));
    expect(await client.execute('query-jobs')).toEqual([]);
    expect(nodeCount()).toBe(nodes);
    expect((await usedMiB()) - before).toBeLessThan(12);
  });

  async function runOne(index: number): Promise<void> {
    const [name, args] = SHORT[index % SHORT.length] ?? SHORT[0] ?? ['', {}];
    const seen = client.job('short');
    try {
      await run(name, args);
    } catch {
      expect(daemon.engine.jobs.list()).toEqual([]);
    }
    for (const job of daemon.engine.jobs.list()) {
      if (job.ready) await run(index % 2 === 0 ? 'job-complete' : 'job-cancel', { id: job.id });
      else if (index % 5 === 0) await run('job-cancel', { id: job.id }).catch(() => undefined);
      else if (job.type === 'mirror') {
        await readyOrOver(job);
        await run('job-cancel', { id: job.id }).catch(() => undefined);
      }
      await job.ended;
      if (job.status === 'concluded') await run('job-dismiss', { id: job.id });
    }
    seen.close();
  }

  /** Resolves once the job is READY, or over. */
  function readyOrOver(job: Job): Promise<void> {
    return new Promise((resolve) => {
      const stop = daemon.engine.events.subscribe(look);
      function look(): void {
        if (!job.ready && job.status !== 'concluded' && job.status !== 'null') return;
        stop();
        resolve();
      }
      look();
    });
  }

  it('thousands of short jobs leave nothing behind', async () => {
    const nodes = nodeCount();
    const runMany = async (count: number): Promise<void> => {
      for (let index = 0; index < count; index += 1) await runOne(index);
    };
    await runMany(100);
    const before = await usedMiB();
    await runMany(SHORT_JOBS);
    expect((await usedMiB()) - before).toBeLessThan(4);
    expect(await client.execute('query-jobs')).toEqual([]);
    expect(nodeCount()).toBe(nodes);
  }, 600_000);
});
