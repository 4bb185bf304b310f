// SPDX-License-Identifier: Apache-2.0
import { expect, it, vi } from 'vitest';

import { Permission } from '../../../src/base/index.js';
import { RunPlan } from '../../../src/drivers/formats/qcow2/data/plan.js';
import { startStream } from '../../../src/jobs/index.js';
import { createImage, firstDifference, makeStage } from '../../helpers/job-stage.js';
import { openImage, readAll } from '../../helpers/job-stage.js';

const CLUSTER = 512;

/** Looks at L2 tables while a base with every other cluster written is streamed. */
async function lookupsOfStream(clusters: number): Promise<number> {
  const stage = makeStage();
  const size = clusters * CLUSTER;
  const spec = { size, clusterSize: CLUSTER };
  await createImage(stage, { name: 'base', ...spec });
  const base = await openImage(stage, 'base');
  const permissions = { taken: Permission.write, shared: Permission.all };
  const guest = await stage.graph.attach(base, 'guest', permissions);
  const data = new Uint8Array(CLUSTER).fill(5);
  for (let at = 0; at < size; at += 2 * CLUSTER) await guest.write(at, data);
  const before = await readAll(base);
  await guest.detach();
  await createImage(stage, { name: 'top', ...spec, backing: 'base' });
  const top = await openImage(stage, 'top', { backing: 'base' });
  const find = vi.spyOn(RunPlan.prototype, 'find');
  try {
    const job = await startStream(stage.jobs, { 'job-id': 's', device: 'top' });
    await job.ended;
    expect(job.info().error).toBeUndefined();
    expect(firstDifference(await readAll(top), before)).toBe(-1);
    return find.mock.calls.length;
  } finally {
    find.mockRestore();
  }
}

it('streaming twice as many short runs looks up about twice as many tables', async () => {
  const few = await lookupsOfStream(4096);
  const many = await lookupsOfStream(8192);
  expect(many).toBeLessThan(2.5 * few);
});
