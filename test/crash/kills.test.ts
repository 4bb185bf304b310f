// SPDX-License-Identifier: Apache-2.0
// The daemon killed at any moment of a job, and right after it, on chains of every shape: the real
// tools find leaks at most, the guest's view as it was, and all that was reported finished.
// BLOCKWRIGHT_CAMPAIGN=N runs N seeds instead of a few (`npm run test:campaign`).
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { SeededRandom } from '../../src/base/index.js';
import type { Random } from '../../src/base/index.js';
import { peer } from '../helpers/peers.js';
import { startProgramDaemon } from '../helpers/program-daemon.js';
import type { ProgramDaemon } from '../helpers/program-daemon.js';
import { guestView, makeRandomChain, pick, realCheck } from '../helpers/random-chain.js';
import type { ChainImage, RandomChain } from '../helpers/random-chain.js';
import { forEachSeed } from '../helpers/seeds.js';

const SEEDS = Number(process.env['BLOCKWRIGHT_CAMPAIGN'] ?? '2');
const CLEAN_OR_LEAKS = [0, 3];
const MOMENTS = ['running', 'concluded'] as const;
/** One line may say that there is no native addon. */
const MISHAP = /internal error|^\s+at /m;
type Moment = (typeof MOMENTS)[number];

interface Scene {
  readonly directory: string;
  readonly random: Random;
  readonly chain: RandomChain;
}

async function onChain(seed: number, act: (scene: Scene) => Promise<void>): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), 'kills-'));
  const random = new SeededRandom(seed);
  try {
    await act({ directory, random, chain: makeRandomChain(directory, random) });
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

function blockdev(name: string, image: Pick<ChainImage, 'path' | 'format'>): string[] {
  const file = { driver: 'file', filename: image.path };
  return ['--blockdev', JSON.stringify({ driver: image.format, 'node-name': name, file })];
}

/**
 * Starts the job and ends the daemon when it has concluded, or after some turns of the
 * conversation, which may be before the command is answered.
 */
async function killAt(
  daemon: ProgramDaemon,
  scene: Scene & { readonly moment: Moment },
  start: () => Promise<unknown>,
): Promise<void> {
  if (scene.moment === 'concluded') {
    const job = daemon.client.job('job');
    await start();
    expect(await job.done).toMatchObject({ result: 'completed', error: null });
    await daemon.end('SIGKILL');
    return;
  }
  const started = start().catch(() => undefined);
  for (let turns = scene.random.below(30); turns > 0; turns -= 1) {
    await daemon.client.execute('query-jobs');
  }
  await daemon.end('SIGKILL');
  await started;
}

/** Slow enough, mostly, that a job is caught at its work. */
function speedFor(moment: Moment, random: Random): number {
  return moment === 'concluded' ? 0 : pick(random, [0, 2, 16, 64]) * 2 ** 20;
}

async function killedStream(seed: number, moment: Moment): Promise<void> {
  await onChain(seed, async (scene) => {
    const { chain, random, directory } = scene;
    const before = guestView(chain.top);
    const daemon = await startProgramDaemon(directory, blockdev('top', chain.top));
    const { client } = daemon;
    const base = chain.images[random.below(chain.images.length)];
    const nodes = await client.execute('query-named-block-nodes');
    const baseNode = nodes.find(
      ({ file, drv }) => file === base?.path && drv === base.format && base !== chain.top,
    )?.['node-name'];
    const start = (): Promise<unknown> =>
      client.execute('block-stream', {
        'job-id': 'job',
        device: 'top',
        'auto-dismiss': false,
        speed: speedFor(moment, random),
        ...(baseNode === undefined ? {} : { 'base-node': baseNode }),
      });
    await killAt(daemon, { ...scene, moment }, start);
    for (const image of chain.images) {
      expect(CLEAN_OR_LEAKS, image.name).toContain(realCheck(image));
    }
    expect(guestView(chain.top).equals(before), 'the view of the guest').toBe(true);
    if (moment === 'concluded') {
      const info = execFileSync(peer('qemu-img') ?? '', ['info', '--output=json', chain.top.path]);
      const facts = JSON.parse(info.toString('utf8')) as { 'backing-filename'?: string };
      const backing = facts['backing-filename'];
      const name = backing === undefined ? undefined : basename(backing);
      expect(name).toBe(baseNode === undefined ? undefined : base?.name);
    }
  });
}

async function killedBackup(seed: number, moment: Moment): Promise<void> {
  await onChain(seed, async (scene) => {
    const { chain, random, directory } = scene;
    const before = guestView(chain.top);
    const format = pick(random, ['raw', 'qcow2', 'qcow2'] as const);
    const target: ChainImage = { path: join(directory, 'target'), name: 'target', format };
    const cluster = pick(random, [512, 4096, 65_536, 2 ** 21]);
    const shape = format === 'raw' ? [] : ['-o', `cluster_size=${cluster}`];
    const create = ['create', '-q', '-f', format, ...shape, target.path, String(chain.size)];
    execFileSync(peer('qemu-img') ?? '', create);
    const nodes = [...blockdev('top', chain.top), ...blockdev('target', target)];
    const daemon = await startProgramDaemon(directory, nodes);
    const start = (): Promise<unknown> =>
      daemon.client.execute('blockdev-backup', {
        'job-id': 'job',
        device: 'top',
        target: 'target',
        sync: 'full',
        'auto-dismiss': false,
        speed: speedFor(moment, random),
      });
    await killAt(daemon, { ...scene, moment }, start);
    for (const image of [...chain.images, target]) {
      expect(CLEAN_OR_LEAKS, image.name).toContain(realCheck(image));
    }
    expect(guestView(chain.top).equals(before), 'the view of the guest').toBe(true);
    if (moment === 'concluded') {
      expect(guestView(target).equals(before), 'the backup').toBe(true);
    }
  });
}

/** The nodes of the chain, from the base up, by the names of their images. */
async function chainNodes(daemon: ProgramDaemon, { chain }: Scene): Promise<string[]> {
  const nodes = await daemon.client.execute('query-named-block-nodes');
  return chain.images.map(({ path, format }) => {
    const node = nodes.find(({ file, drv }) => file === path && drv === format);
    return node?.['node-name'] ?? '';
  });
}

/** Commits what lies below the active layer, or the active layer, into some image below. */
async function killedCommit(seed: number, moment: Moment): Promise<void> {
  await onChain(seed, async (scene) => {
    const { chain, random, directory } = scene;
    const before = guestView(chain.top);
    const daemon = await startProgramDaemon(directory, blockdev('top', chain.top));
    const names = await chainNodes(daemon, scene);
    const last = names.length - 1;
    const top = 1 + random.below(last);
    const base = random.below(top);
    if (top === last) completeWhenReady(daemon);
    const start = (): Promise<unknown> =>
      daemon.client.execute('block-commit', {
        'job-id': 'job',
        device: 'top',
        'top-node': names[top] ?? '',
        'base-node': names[base] ?? '',
        'auto-dismiss': false,
        speed: speedFor(moment, random),
      });
    await killAt(daemon, { ...scene, moment }, start);
    for (const image of chain.images) {
      expect(CLEAN_OR_LEAKS, image.name).toContain(realCheck(image));
    }
    expect(guestView(chain.top).equals(before), 'the view of the guest').toBe(true);
    if (moment !== 'concluded') return;
    const [into, overlay] = [chain.images[base], chain.images[top + 1]];
    if (top === last) {
      const view = guestView(into ?? chain.top).subarray(0, before.length);
      expect(view.equals(before), 'the base').toBe(true);
      return;
    }
    const info = execFileSync(peer('qemu-img') ?? '', [
      'info', '--output=json', overlay?.path ?? '',
    ]);
    const facts = JSON.parse(info.toString('utf8')) as { 'backing-filename'?: string };
    expect(basename(facts['backing-filename'] ?? '')).toBe(into?.name);
  });
}

function completeWhenReady({ client }: ProgramDaemon): void {
  client.onEvent(({ event }) => {
    if (event !== 'BLOCK_JOB_READY') return;
    client.execute('job-complete', { id: 'job' }).catch(() => undefined);
  });
}

async function killedMirror(seed: number, moment: Moment): Promise<void> {
  await onChain(seed, async (scene) => {
    const { chain, random, directory } = scene;
    const before = guestView(chain.top);
    const path = join(directory, 'target');
    const target: ChainImage = { path, name: 'target', format: pick(random, ['raw', 'qcow2']) };
    const daemon = await startProgramDaemon(directory, blockdev('top', chain.top));
    completeWhenReady(daemon);
    const start = (): Promise<unknown> =>
      daemon.client.execute('drive-mirror', {
        'job-id': 'job',
        device: 'top',
        target: path,
        format: target.format,
        sync: 'full',
        'copy-mode': pick(random, ['background', 'write-blocking']),
        granularity: pick(random, [0, 512, 65_536, 2 ** 20]),
        'auto-dismiss': false,
        speed: speedFor(moment, random),
      });
    await killAt(daemon, { ...scene, moment }, start);
    for (const image of chain.images) {
      expect(CLEAN_OR_LEAKS, image.name).toContain(realCheck(image));
    }
    expect(guestView(chain.top).equals(before), 'the view of the guest').toBe(true);
    if (moment !== 'concluded') return;
    expect(CLEAN_OR_LEAKS).toContain(realCheck(target));
    expect(guestView(target).subarray(0, before.length).equals(before), 'the mirror').toBe(true);
  });
}

const CAMPAIGNS = [
  ['stream', killedStream],
  ['commit', killedCommit],
  ['mirror', killedMirror],
  ['backup', killedBackup],
] as const;

describe.skipIf(peer('qemu-img') === null || peer('qemu-io') === null)('a daemon killed', () => {
  for (const [name, campaign] of CAMPAIGNS) {
    for (const moment of MOMENTS) {
      for (let seed = 1; seed <= SEEDS; seed += 1) {
        it(`while a ${name} is ${moment} loses nothing (seed ${seed})`, async () => {
          await campaign(seed, moment);
        });
      }
    }
  }

  it('and one that is asked to end leaves not even leaks', async () => {
    await forEachSeed(SEEDS > 2 ? [101, 102] : [101], async (seed) => {
      await onChain(seed, async (scene) => {
        const { chain, directory } = scene;
        const before = guestView(chain.top);
        const leaks = chain.images.map(realCheck);
        const daemon = await startProgramDaemon(directory, blockdev('top', chain.top));
        const slow = { 'job-id': 'job', device: 'top', speed: 2 ** 20 };
        await daemon.client.execute('block-stream', slow);
        await daemon.client.execute('query-jobs');
        expect(await daemon.end('SIGTERM')).toBe(0);
        expect(daemon.complaint()).not.toMatch(MISHAP);
        expect(chain.images.map(realCheck)).toEqual(leaks);
        expect(guestView(chain.top).equals(before)).toBe(true);
      });
    });
  });
});
