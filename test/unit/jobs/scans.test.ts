// SPDX-License-Identifier: Apache-2.0
// Jobs that look for what to copy where there is nothing: others have their turns meanwhile.
import { expect, it } from 'vitest';

import { COPY_LIMITS } from '../../../src/base/index.js';
import { startMirror, startStream } from '../../../src/jobs/index.js';
import type { Job } from '../../../src/jobs/index.js';
import { createImage, Guest, makeStage, openImage } from '../../helpers/job-stage.js';
import type { Stage } from '../../helpers/job-stage.js';

const CLUSTER = 512;
const CLUSTERS = 8192;

const JOBS: Readonly<Record<string, (stage: Stage) => Promise<Job>>> = {
  stream: ({ jobs }) => startStream(jobs, { 'job-id': 'j', device: 'top' }),
  mirror: ({ jobs }) =>
    startMirror(jobs, { 'job-id': 'j', device: 'top', target: 'target', sync: 'top' }),
};

for (const [name, start] of Object.entries(JOBS)) {
  it(`a ${name} that walks over many short runs lets others have their turns`, async () => {
    const stage = makeStage();
    const spec = { size: CLUSTER * CLUSTERS, clusterSize: CLUSTER };
    await createImage(stage, { name: 'base', ...spec });
    await createImage(stage, { name: 'mid', ...spec, backing: 'base' });
    await createImage(stage, { name: 'top', ...spec, backing: 'mid' });
    await createImage(stage, { name: 'target', ...spec });
    await openImage(stage, 'target');
    await openImage(stage, 'base');
    await openImage(stage, 'mid', { backing: 'base' });
    const top = await openImage(stage, 'top', { backing: 'mid' });
    const guest = await Guest.attach(stage, top);
    const data = new Uint8Array(CLUSTER).fill(5);
    for (let at = 0; at < spec.size; at += 2 * CLUSTER) await guest.write(at, data);
    await guest.backend.detach();
    const job = await start(stage);
    let turns = 0;
    while (!job.ready && job.status !== 'null') {
      await new Promise((resolve) => void setImmediate(resolve));
      turns += 1;
    }
    expect(turns).toBeGreaterThan(CLUSTERS / COPY_LIMITS.scanSteps / 2);
    if (job.ready) await job.cancelBlock(true);
  });
}
