// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from 'vitest';

import { startDriveMirror, startMirror } from '../../../src/jobs/index.js';
import {
  createImage, firstDifference, Guest, makeStage, openImage, readAll, turns,
} from '../../helpers/job-stage.js';

const CLUSTER = 65_536;

describe('zeroes over a backing file', () => {
  for (const version of ['v2', 'v3'] as const) {
    for (const how of ['written as data', 'written as zeroes'] as const) {
      it(`${how} hide it after a mirror of the top into ${version}, too`, async () => {
        const stage = makeStage();
        await createImage(stage, { name: 'base', size: 4 * CLUSTER });
        const written = await openImage(stage, 'base');
        const below = await Guest.attach(stage, written);
        await below.write(0, new Uint8Array(4 * CLUSTER).fill(9));
        await below.backend.flush();
        await below.backend.detach();
        await stage.graph.close(written);
        await openImage(stage, 'base', { readOnly: true });
        await createImage(stage, { name: 'top', size: 4 * CLUSTER, backing: 'base' });
        const top = await openImage(stage, 'top', { backing: 'base' });
        const guest = await Guest.attach(stage, top);
        if (how === 'written as data') await guest.write(0, new Uint8Array(2 * CLUSTER));
        else {
          await guest.backend.writeZeroes(0, 2 * CLUSTER);
          guest.expected.fill(0, 0, 2 * CLUSTER);
        }
        await guest.write(CLUSTER, new Uint8Array(512).fill(3));
        await createImage(stage, { name: 'copy', size: 4 * CLUSTER, backing: 'base', version });
        const job = await startDriveMirror(stage.jobs, {
          'job-id': 'm', device: 'top', target: 'copy.qcow2', mode: 'existing', format: 'qcow2',
          sync: 'top', 'node-name': 'copy', granularity: CLUSTER, 'auto-dismiss': false,
        });
        for (let turn = 0; turn < 3000 && !job.ready; turn += 1) await turns(1);
        job.complete();
        await job.ended;
        expect(job.info().error).toBeUndefined();
        expect(guest.backend.node.name).toBe('copy');
        expect(firstDifference(await readAll(guest.backend.node), guest.expected)).toBe(-1);
      });
    }
  }

  it('hide it in a copy that gets its backing file only afterwards', async () => {
    const stage = makeStage();
    const size = 4 * CLUSTER;
    for (const [name, backing] of [['base', null], ['top', 'base'], ['copy', null]] as const) {
      await createImage(stage, { name, size, ...(backing === null ? {} : { backing }) });
      await openImage(stage, name, { backing });
    }
    const { graph } = stage;
    const below = await Guest.attach(stage, graph.require('base'));
    await below.write(0, new Uint8Array(size).fill(9));
    await below.backend.detach();
    const guest = await Guest.attach(stage, graph.require('top'));
    await guest.write(0, new Uint8Array(3 * CLUSTER));
    await guest.write(CLUSTER, new Uint8Array(CLUSTER).fill(3));
    const job = await startMirror(stage.jobs, {
      'job-id': 'm', device: 'top', target: 'copy', sync: 'top',
    });
    for (let turn = 0; turn < 3000 && !job.ready; turn += 1) await turns(1);
    await job.cancelBlock(false);
    await job.ended;
    await graph.setBacking(graph.require('copy'), graph.require('base'));
    expect(firstDifference(await readAll(graph.require('copy')), guest.expected)).toBe(-1);
  });
});
