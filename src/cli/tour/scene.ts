// SPDX-License-Identifier: Apache-2.0
// What happens in the tour, in order: images, daemon, client, guest; convert and a rate-limited
// backup side by side, then stream; the guest writes throughout. Then all of it is verified
// against what the guest's model says: the base, the point in time of the backup, the end.
import { join } from 'node:path';
import { systemClock } from '../../base/index.js';
import { connect, type QmpClient } from '../../client/index.js';
import type { DiskModel } from '../../testing/index.js';
import { DaemonProcess } from './daemon-process.js';
import type { Display, JobResult } from './display.js';
import { replayGuest } from './guest.js';
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

  const daemon = await DaemonProcess.start(files.socket);
  const client = await connect({ path: files.socket });
  display.note(`A daemon (process ${daemon.pid}) serves QMP on a socket; a client is connected.`);
  return runJobs(plan, files, { daemon, client, base });
}

interface Stage {
  readonly daemon: DaemonProcess;
  readonly client: QmpClient;
  readonly base: DiskModel;
}

async function runJobs(plan: TourPlan, files: Files, stage: Stage): Promise<JobResult[]> {
  const { display, seed } = plan;
  const { client, daemon, base } = stage;
  await openNodes(client, files);
  await daemon.order({ verb: 'attach', node: 'disk', seed });
  await daemon.order({ verb: 'start' });
  display.note('A guest writes to the overlay from now on (a seeded writer; there is no NBD yet).');

  const limit = Math.ceil(plan.size / BACKUP_SECONDS);
  const [convert, backup] = await Promise.all([
    convertBase(plan, files),
    backupDisk(plan, stage, limit),
  ]);
  const streamSeconds = await runJob(plan, client, 'stream', () =>
    client.execute('block-stream', { 'job-id': 'stream', device: 'disk', 'auto-dismiss': false }),
  );
  const stepCount = await daemon.order({ verb: 'detach' });
  await client.execute('quit');
  await client.close();
  await daemon.ended();

  const moment = base.snapshot();
  await replayGuest(moment, { seed, stepCount: backup.stepCount });
  const end = base.snapshot();
  const written = await replayGuest(end, { seed, stepCount });
  const mib = (written / (1024 * 1024)).toFixed(1);
  display.note(`The guest wrote ${mib} MiB meanwhile. All is closed; comparing every byte.`);
  const look = (path: string, model: DiskModel): Promise<string | null> =>
    verifyImage(path, 'qcow2', model);
  const facts = { bytes: plan.size, limit: null };
  return [
    { ...facts, job: 'convert', seconds: convert, verified: await look(files.copy, base) },
    {
      ...facts,
      job: 'backup',
      limit,
      seconds: backup.seconds,
      verified: await look(files.backup, moment),
    },
    { ...facts, job: 'stream', seconds: streamSeconds, verified: await look(files.disk, end) },
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
  { client, daemon }: Stage,
  limit: number,
): Promise<{ seconds: number; stepCount: number }> {
  let stepCount = 0;
  const seconds = await runJob(plan, client, 'backup', async () => {
    stepCount = await daemon.order({ verb: 'stop' });
    await client.execute('blockdev-backup', {
      'job-id': 'backup',
      device: 'disk',
      target: 'target',
      sync: 'full',
      speed: limit,
      'auto-dismiss': false,
    });
    await daemon.order({ verb: 'start' });
  });
  return { seconds, stepCount };
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
