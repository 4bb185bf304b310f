// SPDX-License-Identifier: Apache-2.0
// Does a job keep to the speed that it was given? Its progress is read twice, ten seconds apart, a
// second after it began. A figure is the time that the bytes of ten seconds took: ten is right, and
// "verified" means within 5 %.
import { copyFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { type Daemon, startDaemon, type Who } from './daemons.js';
import { writeContent } from './data.js';
import type { Bench, BenchContext, Result } from './harness.js';
import { timeCommand } from './harness.js';

const MIB = 1024 * 1024;
const SECONDS = 10;
const TOLERANCE = 0.05;
/** There is data for longer than is measured. */
const SPARE_SECONDS = 16;
const MOST_SPEED = 16 * MIB;

const JOBS = ['stream', 'commit', 'mirror', 'backup'] as const;
type JobName = (typeof JOBS)[number];

export const bench: Bench = {
  name: 'speed',
  question: 'Does a job keep to the speed that it was given, over ten seconds?',
  async run(context) {
    const files = await makeImages(context);
    const results: Result[] = [];
    for (const job of JOBS) {
      context.log(`speed of ${job}`);
      results.push(await measure(context, job, files));
    }
    for (const path of Object.values(files)) rmSync(path, { force: true });
    return results;
  },
};

interface Images {
  readonly source: string;
  /** Empty, and as large; copied for each run. */
  readonly empty: string;
}

async function makeImages(context: BenchContext): Promise<Images> {
  const real = context.peer('qemu-img');
  const tool = real === null ? [...context.ours, 'img'] : [real];
  const at = (name: string): string => join(context.folder, name);
  const images: Images = { source: at('source.qcow2'), empty: at('empty.qcow2') };
  const plain = at('plain');
  writeContent(plain, context.size, 'dense');
  await timeCommand([...tool, 'convert', '-f', 'raw', '-O', 'qcow2', plain, images.source]);
  rmSync(plain);
  await timeCommand([...tool, 'create', '-q', '-f', 'qcow2', images.empty, `${context.size}`]);
  return images;
}

async function measure(context: BenchContext, job: JobName, images: Images): Promise<Result> {
  const speed = Math.min(MOST_SPEED, Math.floor(context.size / SPARE_SECONDS));
  const run = (who: Who): Promise<number> => timeTenSeconds(context, who, { job, speed, images });
  const ours = await run('ours');
  const peer = context.peer('qemu-storage-daemon') === null ? null : await run('peer');
  return {
    question: `block job ${job}, ${(speed / MIB).toFixed(1)} MiB/s`,
    bytes: speed * SECONDS,
    ours: [ours],
    peer: peer === null ? null : [peer],
    startUpIncluded: { ours: 0, peer: peer === null ? null : 0 },
    verified: Math.abs(ours - SECONDS) <= SECONDS * TOLERANCE,
  };
}

async function timeTenSeconds(
  context: BenchContext,
  who: Who,
  run: { readonly job: JobName; readonly speed: number; readonly images: Images },
): Promise<number> {
  const { job, speed, images } = run;
  const scratch = ['low', 'high'].map((name) => join(context.folder, `${name}.qcow2`));
  for (const path of scratch) copyFileSync(images.empty, path);
  const [low = '', high = ''] = scratch;
  const node = (name: string, file: string, backing: string): string =>
    `driver=qcow2,node-name=${name},file.driver=file,file.filename=${file}${backing}`;
  const daemon = await startDaemon(context, who, [
    node('low', low, ''),
    node('source', images.source, job === 'commit' ? ',backing=low' : ''),
    node('high', high, job === 'commit' || job === 'stream' ? ',backing=source' : ''),
  ]);
  try {
    await start(daemon, job, speed);
    await delay(1000);
    const before = await progress(daemon);
    await delay(SECONDS * 1000);
    const after = await progress(daemon);
    await daemon.client.execute('block-job-cancel', { device: 'job', force: true });
    const rate = (after.offset - before.offset) / (after.seconds - before.seconds);
    return (speed * SECONDS) / rate;
  } finally {
    await daemon.stop();
    for (const path of scratch) rmSync(path, { force: true });
  }
}

async function start({ client }: Daemon, job: JobName, speed: number): Promise<void> {
  const common = { 'job-id': 'job', speed };
  const copy = { ...common, device: 'source', target: 'low', sync: 'full' } as const;
  switch (job) {
    case 'stream':
      await client.execute('block-stream', { ...common, device: 'high' });
      return;
    case 'commit':
      await client.execute('block-commit', { ...common, device: 'high', 'top-node': 'source' });
      return;
    case 'mirror':
      await client.execute('blockdev-mirror', copy);
      return;
    case 'backup':
      await client.execute('blockdev-backup', copy);
  }
}

async function progress({ client }: Daemon): Promise<{ offset: number; seconds: number }> {
  const [job] = await client.execute('query-block-jobs');
  if (job === undefined) throw new Error('the job is over: there was too little to copy');
  return { offset: Number(job.offset), seconds: performance.now() / 1000 };
}
