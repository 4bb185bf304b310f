// SPDX-License-Identifier: Apache-2.0
// What happens in the tour, in order: images, engine, client, guest; convert and a rate-limited
// backup side by side, then stream; the guest writes throughout. Then all of it is verified
// against what the guest's model says: the base, the point in time of the backup, the end.
import { join } from 'node:path';
import { systemClock } from '../../base/index.js';
import { connect, type QmpClient } from '../../client/index.js';
import { createEngine, type Engine } from '../../engine/index.js';
import { openDefaultHost } from '../../host/index.js';
import { QmpServer } from '../../qmp/index.js';
import type { DiskModel } from '../../testing/index.js';
import type { Display, JobResult } from './display.js';
import { TourGuest } from './guest.js';
import { convertWithProgress, makeContent, runImg, verifyImage, writeRaw } from './images.js';

export interface TourPlan {
  readonly folder: string;
  readonly size: number;
  readonly seed: number;
  readonly display: Display;
}

/** Limit of the backup, so that a disk takes about three seconds. */
const BACKUP_SECONDS = 3;
const POLL_MS = 50;

interface Files {
  readonly raw: string;
  readonly base: string;
  readonly disk: string;
  readonly copy: string;
  readonly backup: string;
  readonly socket: string;
}

export async function playTour(plan: TourPlan): Promise<readonly JobResult[]> {
  const { display, folder, size } = plan;
  const at = (name: string): string => join(folder, name);
  const files: Files = {
    raw: at('base.raw'),
    base: at('base.qcow2'),
    disk: at('disk.qcow2'),
    copy: at('copy.qcow2'),
    backup: at('backup.qcow2'),
    socket: at('qmp.sock'),
  };
  const base = makeContent(size, plan.seed);
  display.note(`Images of ${size / (1024 * 1024)} MiB in ${folder}: a base and an overlay.`);
  writeRaw(files.raw, base);
  await runImg('convert', '-f', 'raw', '-O', 'qcow2', files.raw, files.base);
  await runImg('create', '-q', '-f', 'qcow2', '-b', files.base, '-F', 'qcow2', files.disk);
  await runImg('create', '-q', '-f', 'qcow2', files.backup, String(size));

  const engine = await createEngine({ host: openDefaultHost() });
  const server = new QmpServer(engine);
  try {
    await server.listen({ type: 'unix', path: files.socket });
    const client = await connect({ path: files.socket });
    display.note('The engine serves QMP on a unix socket; a typed client is connected to it.');
    return await runJobs(plan, files, { engine, client, base });
  } finally {
    await server.close();
    await engine.close();
  }
}

interface Stage {
  readonly engine: Engine;
  readonly client: QmpClient;
  readonly base: DiskModel;
}

async function runJobs(plan: TourPlan, files: Files, stage: Stage): Promise<JobResult[]> {
  const { display, seed } = plan;
  const { client, engine, base } = stage;
  await openNodes(client, files);
  const model = base.snapshot();
  const guest = await TourGuest.attach(engine.graph, engine.graph.require('disk'), { model, seed });
  guest.start();
  display.note('A guest writes to the overlay from now on (a seeded writer; there is no NBD yet).');

  const limit = Math.ceil(plan.size / BACKUP_SECONDS);
  const [convert, backup] = await Promise.all([
    convertBase(plan, files),
    backupDisk(plan, client, { guest, model, limit }),
  ]);
  const streamSeconds = await runJob(plan, client, 'stream', () =>
    client.execute('block-stream', { 'job-id': 'stream', device: 'disk', 'auto-dismiss': false }),
  );
  await guest.detach();
  const mib = (guest.writtenBytes / (1024 * 1024)).toFixed(1);
  display.note(`The guest wrote ${mib} MiB meanwhile. Closing, then comparing every byte.`);
  await client.execute('quit');
  await client.close();
  await engine.close();

  const facts = { bytes: plan.size, limit: null };
  return [
    {
      ...facts,
      job: 'convert',
      seconds: convert,
      verified: await verifyImage(files.copy, 'qcow2', base),
    },
    {
      ...facts,
      job: 'backup',
      limit,
      seconds: backup.seconds,
      verified: await verifyImage(files.backup, 'qcow2', backup.moment),
    },
    {
      ...facts,
      job: 'stream',
      seconds: streamSeconds,
      verified: await verifyImage(files.disk, 'qcow2', model),
    },
  ];
}

async function openNodes(client: QmpClient, files: Files): Promise<void> {
  for (const [name, path] of [['disk', files.disk], ['target', files.backup]] as const) {
    await client.execute('blockdev-add', {
      driver: 'qcow2',
      'node-name': name,
      file: { driver: 'file', filename: path },
    });
  }
}

/** `blockwright img convert` in a process of its own, on the base that the overlay uses. */
async function convertBase(plan: TourPlan, files: Files): Promise<number> {
  const begin = systemClock.now();
  const show = (fraction: number): void =>
    plan.display.progress({ job: 'convert', done: fraction * plan.size, total: plan.size });
  await convertWithProgress(['-f', 'qcow2', '-O', 'qcow2', files.base, files.copy], show);
  show(1);
  return (systemClock.now() - begin) / 1000;
}

/** The guest stands still while the command is answered: that is the point in time copied. */
async function backupDisk(
  plan: TourPlan,
  client: QmpClient,
  { guest, model, limit }: { guest: TourGuest; model: DiskModel; limit: number },
): Promise<{ seconds: number; moment: DiskModel }> {
  let moment = model;
  const seconds = await runJob(plan, client, 'backup', async () => {
    await guest.stop();
    await client.execute('blockdev-backup', {
      'job-id': 'backup',
      device: 'disk',
      target: 'target',
      sync: 'full',
      speed: limit,
      'auto-dismiss': false,
    });
    moment = model.snapshot();
    guest.start();
  });
  return { seconds, moment };
}

/** Starts a job, shows its progress until it has concluded, dismisses it; gives its seconds. */
async function runJob(
  plan: TourPlan,
  client: QmpClient,
  id: string,
  start: () => Promise<unknown>,
): Promise<number> {
  const job = client.job(id);
  const begin = systemClock.now();
  await start();
  let seconds = 0;
  let over = false;
  const finished = (): void => {
    over = true;
    seconds = (systemClock.now() - begin) / 1000;
  };
  const ended = job.completed().finally(finished);
  const watched = showProgress(plan, client, { id, isOver: () => over });
  await Promise.all([ended, watched]);
  await client.execute('job-dismiss', { id });
  plan.display.progress({ job: id, done: plan.size, total: plan.size });
  return seconds;
}

async function showProgress(
  plan: TourPlan,
  client: QmpClient,
  { id, isOver }: { id: string; isOver: () => boolean },
): Promise<void> {
  while (!isOver()) {
    const job = (await client.execute('query-jobs')).find((candidate) => candidate.id === id);
    if (job === undefined) return;
    const [done, total] = [job['current-progress'], job['total-progress']];
    if (done < total) plan.display.progress({ job: id, done, total });
    await new Promise<void>((resolve) => void systemClock.after(POLL_MS, resolve));
  }
}
