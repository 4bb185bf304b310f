// SPDX-License-Identifier: Apache-2.0
// Filters of jobs whose removal is not possible at the job's end.
import { describe, expect, it } from 'vitest';
import { Permission } from '../../../src/base/index.js';
import type { Backend } from '../../../src/block/index.js';
import { startCommit } from '../../../src/jobs/index.js';
import type { Job } from '../../../src/jobs/index.js';
import {
  firstDifference,
  Guest,
  makeChain,
  makeStage,
  readAll,
  turns,
} from '../../helpers/job-stage.js';
import type { Stage } from '../../helpers/job-stage.js';

async function reach(job: Job, status: string): Promise<void> {
  for (let turn = 0; turn < 3000 && job.status !== status; turn += 1) await turns(1);
  expect(job.status).toBe(status);
}

interface Conflict extends Stage {
  readonly guest: Guest;
  readonly other: Backend;
  readonly job: Job;
}

/** The filter of an active commit lets others forbid reads of its source; its guest reads. */
async function conflict(): Promise<Conflict> {
  const stage = makeStage();
  const nodes = await makeChain(stage, { seed: 5 });
  const top = stage.graph.require('top');
  const guest = await Guest.attach(stage, nodes['top'] as never);
  const job = await startCommit(stage.jobs, {
    'job-id': 'c', device: 'top', 'filter-node-name': 'f', 'auto-dismiss': true,
  });
  await reach(job, 'ready');
  expect(guest.backend.node.name).toBe('f');
  const shared = Permission.all & ~Permission.consistentRead;
  const other = await stage.graph.attach(top, 'other', { taken: Permission.none, shared });
  return { ...stage, guest, other, job };
}

async function end(job: Job, how: 'complete' | 'cancel'): Promise<string | undefined> {
  if (how === 'complete') job.complete();
  else await job.cancelBlock(true);
  await job.ended;
  return job.info().error;
}

describe('a filter that users of its node keep from going', () => {
  for (const how of ['complete', 'cancel'] as const) {
    it(`stays at the ${how} of its job and goes with what kept it`, async () => {
      const { graph, guest, other, job } = await conflict();
      const error = await end(job, how);
      expect(error).toMatch(how === 'complete' ? /^Permission conflict on node/ : /canceled/i);
      expect(guest.backend.node.name).toBe('f');
      await guest.write(65_536, new Uint8Array(1024).fill(7));
      await other.detach();
      await turns(20);
      expect(guest.backend.node.name).toBe('top');
      expect(graph.find('f')).toBeNull();
      await guest.write(0, new Uint8Array(512).fill(8));
      expect(firstDifference(await readAll(graph.require('top')), guest.expected)).toBe(-1);
    });
  }

  it('goes with its own user', async () => {
    const { graph, guest, job } = await conflict();
    await end(job, 'complete');
    await guest.backend.detach();
    await turns(20);
    expect(graph.find('f')).toBeNull();
  });

  it('goes when a permission is lowered', async () => {
    const { graph, guest, other, job } = await conflict();
    await end(job, 'complete');
    other.setPermissions({ taken: Permission.none, shared: Permission.all });
    await turns(20);
    expect([graph.find('f'), guest.backend.node.name]).toEqual([null, 'top']);
  });

  it('is closed with everything else', async () => {
    const { graph, guest, other, job } = await conflict();
    await end(job, 'complete');
    await Promise.all([guest.backend.detach(), other.detach()]);
    await graph.closeAll();
    expect([...graph.nodes]).toEqual([]);
  });
});
