// SPDX-License-Identifier: Apache-2.0
// Every job is cancelled, paused, drained, slowed down or met by an error at every turn of its
// life, while a guest writes: it ends, nothing of it stays, the guest reads what it wrote, and
// bitmaps know of every change.
import { describe, expect, it } from 'vitest';
import { BlockError, ManualClock, SeededRandom } from '../../src/base/index.js';
import { addBitmap, findBitmap, operationRefusal, shownBitmapsOf } from '../../src/block/index.js';
import type { Node } from '../../src/block/index.js';
import { MemoryHost } from '../../src/host/index.js';
import {
  startBackup,
  startCommit,
  startDriveBackup,
  startMirror,
  startStream,
} from '../../src/jobs/index.js';
import type { Job } from '../../src/jobs/index.js';
import {
  createImage,
  firstDifference,
  Guest,
  openPreparedChain,
  makeStage,
  openImage,
  readAll,
  turns,
} from '../helpers/job-stage.js';
import type { Stage } from '../helpers/job-stage.js';

const SIZE = 3 * 2 ** 17;
const SECTOR = 512;
const CLUSTERS = [65_536, 4096, 16_384];
/** Turns of a life that are tried; a campaign tries each of them. */
const TURNS =
  process.env['BLOCKWRIGHT_CAMPAIGN'] === undefined
    ? [0, 1, 3, 8, 13, 21, 34, 55, 89, 144, 233]
    : Array.from({ length: 400 }, (_, turn) => turn);

interface Interruption extends Stage {
  readonly clock: ManualClock;
  readonly guest: Guest;
  readonly random: SeededRandom;
  readonly before: Uint8Array;
  readonly sections: (() => void)[];
}

async function prepare(seed: number): Promise<Interruption> {
  const clock = new ManualClock();
  const host = new MemoryHost({ seed, clock });
  const stage = makeStage({ host });
  await openPreparedChain(stage, { seed: 5, size: SIZE, clusterSizes: CLUSTERS, scribbles: 3 });
  await createImage(stage, { name: 'target', size: SIZE });
  await openImage(stage, 'target');
  const top = stage.graph.require('top');
  const before = await readAll(top);
  addBitmap(top, { name: 'all', granularity: SECTOR });
  addBitmap(top, { name: 'used' });
  const guest = await Guest.attach(stage, top);
  return { ...stage, clock, guest, before, random: new SeededRandom(seed), sections: [] };
}

const id = { 'job-id': 'j' } as const;
const copy = { ...id, device: 'top', target: 'target', sync: 'full' } as const;
const bits = { bitmap: 'used', 'bitmap-mode': 'always' } as const;

const JOBS: Readonly<Record<string, (stage: Stage) => Promise<Job>>> = {
  stream: ({ jobs }) => startStream(jobs, { ...id, device: 'top', 'base-node': 'base' }),
  commit: ({ jobs }) => startCommit(jobs, { ...id, device: 'top', 'top-node': 'mid' }),
  'active commit': ({ jobs }) => startCommit(jobs, { ...id, device: 'top' }),
  mirror: ({ jobs }) => startMirror(jobs, copy),
  'blocking mirror': ({ jobs }) => startMirror(jobs, { ...copy, 'copy-mode': 'write-blocking' }),
  backup: ({ jobs }) => startBackup(jobs, { ...copy, ...bits }),
  'drive-backup': ({ jobs }) =>
    startDriveBackup(jobs, { ...copy, ...bits, target: 'made.qcow2' }),
};

/** A verb comes too late for a job that is over, or ending. */
async function attempt(verb: () => void | Promise<void>): Promise<void> {
  try {
    await verb();
  } catch (error) {
    if (!(error instanceof BlockError) || error.kind !== 'invalid-state') throw error;
  }
}

const ACTIONS: Readonly<Record<string, (stage: Interruption, job: Job) => Promise<void>>> = {
  cancel: (_, job) => attempt(() => job.cancel()),
  'soft cancel': (_, job) => attempt(() => job.cancelBlock(false)),
  pause: (_, job) => attempt(() => job.pause()),
  'pause and cancel': async (_, job) => {
    await attempt(() => job.pause());
    await turns(1);
    await attempt(() => job.cancel());
  },
  drain: async ({ graph, sections }) => {
    const section = await graph.drain([graph.require('top')]);
    sections.push(() => section.end());
  },
  'new speed': (_, job) => attempt(() => job.setSpeed(2 ** 20)),
  'read error': ({ host }) => {
    const nth = host.faults.count('read') + 1;
    host.faults.add({ operation: 'read', nth, path: 'base.qcow2', errno: 'EIO' });
    return Promise.resolve();
  },
  'write error': ({ host }) => {
    const nth = host.faults.count('write') + 1;
    host.faults.add({ operation: 'write', nth, path: 'target.qcow2', errno: 'ENOSPC' });
    return Promise.resolve();
  },
};

/** Throws when the job gets nowhere any more. */
async function untilEnded(
  stage: Interruption,
  job: Job,
  act: () => Promise<void>,
): Promise<void> {
  const { clock, sections } = stage;
  let over = false;
  let writing: Promise<void> = Promise.resolve();
  void job.ended.then(() => (over = true));
  for (let turn = 0; !over; turn += 1) {
    if (turn > 3000) throw new Error(`the job is stuck: ${stage.trace.join(', ')}`);
    // Held back as long as the node is drained.
    if (turn === 1) writing = act();
    if (turn > 2) for (const end of sections.splice(0)) end();
    if (turn > 5 && job.blockInfo().paused) await attempt(() => job.resume());
    if (turn > 8 && job.status === 'ready') await attempt(() => job.complete());
    clock.advance(100);
    await turns(1);
  }
  for (const end of sections.splice(0)) end();
  await writing;
}

function unknownChanges(node: Node, before: Uint8Array, now: Uint8Array): number[] {
  const bitmap = findBitmap(node, 'all');
  const sectors: number[] = [];
  for (let at = 0; at < SIZE; at += SECTOR) {
    const range = [at, at + SECTOR] as const;
    const same = Buffer.from(before.subarray(...range)).equals(now.subarray(...range));
    if (!same && bitmap?.isDirty(at) !== true) sectors.push(at);
  }
  return sectors;
}

function expectNothingLeft(stage: Stage): void {
  const left = [...stage.graph.nodes].filter((node) => node.driver.kind === 'filter');
  expect(left.map((node) => node.name)).toEqual([]);
  const top = stage.graph.require('top');
  expect([...top.children.values()].filter((child) => child.frozenBy !== null)).toEqual([]);
  expect(operationRefusal(top, 'stream')).toBeNull();
  expect(stage.jobs.list()).toEqual([]);
  expect(shownBitmapsOf(top)).toEqual([findBitmap(top, 'all'), findBitmap(top, 'used')]);
  expect(findBitmap(top, 'used')).toMatchObject({ busy: false, enabled: true });
}

async function interrupted(seed: number, name: string, action: string): Promise<boolean> {
  const stage = await prepare(seed);
  const { guest, host, random } = stage;
  let torn = false;
  const act = (): Promise<void> =>
    guest.act(random).catch(() => {
      torn = true;
    });
  const job = await JOBS[name]?.(stage);
  if (job === undefined) throw new Error(`no job ${name}`);
  const writing = act();
  for (let turn = 0; turn < seed; turn += 1) await Promise.resolve();
  const wasOver = job.status === 'null';
  const acting = ACTIONS[action]?.(stage, job);
  await writing;
  await Promise.race([acting, turns(20)]);
  await untilEnded(stage, job, act);
  await acting;
  for (const end of stage.sections.splice(0)) end();
  host.faults.clear();
  const top = stage.graph.require('top');
  expectNothingLeft(stage);
  expect(unknownChanges(top, stage.before, await readAll(top))).toEqual([]);
  if (!torn) {
    const view = await readAll(guest.backend.node);
    expect(firstDifference(view, guest.expected)).toBe(-1);
  }
  return wasOver;
}

describe('interruptions', () => {
  for (const name of Object.keys(JOBS)) {
    for (const action of Object.keys(ACTIONS)) {
      it(`${name}, ${action}: whenever it comes, nothing is left behind`, async () => {
        for (const turn of TURNS) {
          try {
            if (await interrupted(turn, name, action)) break;
          } catch (error) {
            if (error instanceof Error) error.message += `\n(at turn ${turn})`;
            throw error;
          }
        }
      });
    }
  }
});
