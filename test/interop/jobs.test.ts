// SPDX-License-Identifier: Apache-2.0
// Chains made by the real qemu-img, jobs run on them with real files and threads, results judged by
// the real qemu-img.
import { execFileSync } from 'node:child_process';
import {
  copyFileSync, existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeEach, describe, expect, it } from 'vitest';
import { SeededRandom } from '../../src/base/index.js';
import type { NodeOptions } from '../../src/block/index.js';
import { openDefaultHost } from '../../src/host/index.js';
import { startCommit, startCreate, startMirror, startStream } from '../../src/jobs/index.js';
import type { Job } from '../../src/jobs/index.js';
import { Guest, makeStage, turns } from '../helpers/job-stage.js';
import type { Stage } from '../helpers/job-stage.js';
import { peer } from '../helpers/peers.js';
import { startBackup } from '../helpers/start-backup.js';

const qemuImg = peer('qemu-img');
const qemuIo = peer('qemu-io');
const MIB = 2 ** 20;

interface Layer {
  readonly options: string;
  readonly commands: readonly string[];
}

const CHAINS: readonly (readonly Layer[])[] = [
  [
    { options: 'cluster_size=64k', commands: ['write -P 1 0 9M'] },
    { options: 'cluster_size=4k', commands: ['write -P 2 3M 2M', 'write -z 6M 1M'] },
    { options: 'cluster_size=64k', commands: ['write -P 3 4M 300k', 'discard 100k 64k'] },
  ],
  [
    { options: 'cluster_size=2M', commands: ['write -c -P 1 0 2M', 'write -P 9 4M 1k'] },
    { options: 'cluster_size=512', commands: ['write -P 2 1111k 77k', 'write -z 5M 512'] },
    { options: 'cluster_size=64k,compat=0.10', commands: ['write -P 3 7M 1M'] },
  ],
];

/** Played in campaigns; test/property/jobs.test.ts has subclusters as well. */
const SUBCLUSTERED: readonly (readonly Layer[])[] = [
  [
    { options: 'extended_l2=on', commands: ['write -P 1 1k 6M', 'write -z 90k 3k'] },
    {
      options: 'extended_l2=on,cluster_size=16k,preallocation=metadata',
      commands: ['write -P 2 3333k 50k', 'write -z 2M 70k', 'write -P 4 9M 1k'],
    },
    { options: 'extended_l2=on,cluster_size=2M', commands: ['write -P 3 5M 70k'] },
  ],
];

const isCampaign = process.env['BLOCKWRIGHT_CAMPAIGN'] !== undefined;
const LAYERS = isCampaign ? [...CHAINS, ...SUBCLUSTERED] : CHAINS;

describe.skipIf(qemuImg === null || qemuIo === null)('jobs on images of the real tools', () => {
  const folder = mkdtempSync(join(tmpdir(), 'jobs-'));
  const templates = mkdtempSync(join(tmpdir(), 'jobs-templates-'));
  let stage: Stage;
  const path = (name: string): string => join(folder, name);
  const img = (...args: string[]): string =>
    execFileSync(qemuImg ?? '', args, { cwd: folder, encoding: 'utf8' });
  const io = (file: string, command: string): void =>
    void execFileSync(qemuIo ?? '', ['-f', 'qcow2', '-c', command, file], { cwd: folder });

  const open = (name: string, backing: string | null): Promise<unknown> =>
    stage.graph.open({
      driver: 'qcow2',
      'node-name': name,
      file: { driver: 'file', filename: path(`${name}.qcow2`) },
      backing,
    } as NodeOptions);

  /** Each chain is made once; its images name each other by their path in `folder`. */
  function makeLayers(layers: readonly Layer[]): void {
    const made = join(templates, String(LAYERS.indexOf(layers)));
    if (!existsSync(made)) {
      makeOnce(layers);
      mkdirSync(made);
      for (const name of readdirSync(folder)) copyFileSync(path(name), join(made, name));
    }
    for (const name of readdirSync(made)) copyFileSync(join(made, name), path(name));
  }

  function makeOnce(layers: readonly Layer[]): void {
    for (const [index, { options, commands }] of layers.entries()) {
      const below = index === 0 ? [] : ['-b', path(`layer${index - 1}.qcow2`), '-F', 'qcow2'];
      img('create', '-q', '-f', 'qcow2', '-o', options, ...below, `layer${index}.qcow2`, '16M');
      for (const command of commands) io(`layer${index}.qcow2`, command);
    }
    img('convert', '-O', 'raw', 'layer2.qcow2', 'view.raw');
  }

  async function openLayers(): Promise<void> {
    await open('layer0', null);
    await open('layer1', 'layer0');
    await open('layer2', 'layer1');
  }

  async function actWhile(job: Job, guest: Guest): Promise<void> {
    const random = new SeededRandom(1);
    let running = true;
    void job.ended.then(() => (running = false));
    for (let count = 0; running && count < 50; count += 1) {
      await guest.act(random);
      await turns(1);
    }
    await job.ended;
  }

  beforeEach(() => {
    stage = makeStage({ host: openDefaultHost() as never });
  });
  afterEach(async () => {
    await stage.graph.closeAll();
    await stage.jobs.engine.close();
    for (const name of readdirSync(folder)) rmSync(path(name));
  });
  afterAll(() => {
    for (const made of [folder, templates]) rmSync(made, { recursive: true, force: true });
  });

  for (const [index, layers] of LAYERS.entries()) {
    for (const base of ['layer0', null]) {
      it(`chain ${index} streamed down to ${base ?? 'nothing'} is clean and the same`, async () => {
        makeLayers(layers);
        await openLayers();
        const job = await startStream(stage.jobs, {
          'job-id': 's', device: 'layer2', ...(base === null ? {} : { 'base-node': base }),
        });
        await job.ended;
        expect(job.info().error).toBeUndefined();
        await stage.graph.closeAll();
        img('check', 'layer2.qcow2');
        img('compare', 'view.raw', 'layer2.qcow2');
        const info = JSON.parse(img('info', '--output=json', 'layer2.qcow2')) as object;
        const named = 'backing-filename' in info ? info['backing-filename'] : null;
        expect(named).toBe(base === null ? null : path('layer0.qcow2'));
      });
    }

    for (const compress of [false, true]) {
      it(`chain ${index} backed up ${compress ? 'compressed' : 'plain'} is the view`, async () => {
        makeLayers(layers);
        img('create', '-q', '-f', 'qcow2', 'copy.qcow2', '16M');
        await openLayers();
        await open('copy', null);
        const guest = await Guest.attach(stage, stage.graph.require('layer2'));
        const job = await startBackup(stage.jobs, {
          'job-id': 'b', device: 'layer2', target: 'copy', sync: 'full', compress,
        });
        await (compress ? job.ended : actWhile(job, guest));
        expect(job.info().error).toBeUndefined();
        await guest.backend.detach();
        await stage.graph.closeAll();
        img('check', 'copy.qcow2');
        img('check', 'layer2.qcow2');
        img('compare', 'view.raw', 'copy.qcow2');
      });
    }
  }

  async function whenReady(job: Job, guest: Guest): Promise<void> {
    const random = new SeededRandom(2);
    while (job.status === 'running') {
      await guest.act(random);
      await turns(1);
    }
    for (let count = 0; count < 20; count += 1) await guest.act(random);
    job.complete();
    await job.ended;
    for (let count = 0; count < 10; count += 1) await guest.act(random);
    await guest.backend.flush();
  }

  for (const [index, layers] of LAYERS.entries()) {
    it(`chain ${index} committed below its active layer is clean and the same`, async () => {
      makeLayers(layers);
      await openLayers();
      const job = await startCommit(stage.jobs, {
        'job-id': 'c', device: 'layer2', 'top-node': 'layer1',
      });
      await job.ended;
      expect(job.info().error).toBeUndefined();
      await stage.graph.closeAll();
      for (const name of ['layer0', 'layer2']) img('check', `${name}.qcow2`);
      img('compare', 'view.raw', 'layer2.qcow2');
      const info = JSON.parse(img('info', '--output=json', 'layer2.qcow2')) as object;
      expect(info).toMatchObject({ 'backing-filename': path('layer0.qcow2') });
    });

    for (const target of ['layer0', 'layer1', 'copy']) {
      it(`chain ${index} moved into ${target} under a guest is clean and the same`, async () => {
        makeLayers(layers);
        img('create', '-q', '-f', 'qcow2', '-o', 'cluster_size=256k', 'copy.qcow2', '16M');
        await openLayers();
        await open('copy', null);
        const guest = await Guest.attach(stage, stage.graph.require('layer2'));
        const job = await (target === 'copy'
          ? startMirror(stage.jobs, {
              'job-id': 'm', device: 'layer2', target, sync: 'full',
              'copy-mode': index === 0 ? 'background' : 'write-blocking',
            })
          : startCommit(stage.jobs, { 'job-id': 'c', device: 'layer2', 'base-node': target }));
        await whenReady(job, guest);
        expect(job.info().error).toBeUndefined();
        expect(guest.backend.node.name).toBe(target);
        await guest.backend.detach();
        await stage.graph.closeAll();
        writeFileSync(path('expected.raw'), guest.expected);
        img('check', `${target}.qcow2`);
        img('compare', 'expected.raw', `${target}.qcow2`);
      });
    }
  }

  it('an image made by a create job is an empty image for the real tool', async () => {
    const file = await startCreate(stage.jobs, {
      'job-id': 'f', options: { driver: 'file', filename: path('new.qcow2'), size: 0 },
    });
    await file.ended;
    expect(file.info()).toMatchObject({ status: 'concluded', 'current-progress': 1 });
    await stage.graph.open({
      driver: 'file', 'node-name': 'new', filename: path('new.qcow2'),
    } as NodeOptions);
    const image = await startCreate(stage.jobs, {
      'job-id': 'i', options: { driver: 'qcow2', file: 'new', size: 5 * MIB },
    });
    await image.ended;
    expect(image.info().error).toBeUndefined();
    const refused = await startCreate(stage.jobs, {
      'job-id': 'r', options: { driver: 'qcow2', file: 'nope', size: 5 * MIB },
    });
    await refused.ended;
    expect(refused.info().error).toBe("Cannot find device='nope' nor node-name='nope'");
    await stage.graph.closeAll();
    img('check', 'new.qcow2');
    const info = JSON.parse(img('info', '--output=json', 'new.qcow2')) as Record<string, unknown>;
    expect(info['virtual-size']).toBe(5 * MIB);
  });
});
