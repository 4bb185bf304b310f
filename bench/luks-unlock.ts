// SPDX-License-Identifier: Apache-2.0
// What unlocking an image costs: as a command of its own, which starts a program too, and as
// blockdev-add and blockdev-del in daemons that run, which is the work alone; for keys that take 10
// ms and for the reference's default of 2 s, made by the reference (and by cryptsetup). And what it
// costs to make an image.
import { execFileSync } from 'node:child_process';
import { rmSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Cost, measureCommand, Meter, type Who } from './costs.js';
import { type Daemon, startDaemon } from './daemons.js';
import type { BenchContext, Result } from './harness.js';
import { alternate, median, startUp } from './harness.js';
import { create, encrypted, imgTools, PASSWORD, referenceOf, SECRET } from './luks-images.js';

const MIB = 1024 * 1024;
const SHORT = 'iter-time=10';
/** Short ones are many, so that their median means something; each long one takes seconds. */
const SHORT_ROUNDS = 11;
const LONG_ROUNDS = 2;
const HASHES = ['sha1', 'sha256', 'sha512'];

const NONE = { startUpIncluded: { ours: 0, peer: null }, verified: null } as const;

/** One command that opens an image and reads nothing of it, median of several runs. */
export async function openingCost(
  context: BenchContext,
): Promise<{ ours: Cost; peer: Cost | null }> {
  const path = join(context.folder, 'unlock.luks');
  const { ours, peer } = imgTools(context);
  await makeByReference(context, path, [SHORT]);
  const args = ['map', '--output=json', ...SECRET, '--image-opts', encrypted('luks', path)];
  const cost = async (tool: readonly string[]): Promise<Cost> => {
    const costs: Cost[] = [];
    for (let round = 0; round < SHORT_ROUNDS; round += 1) {
      costs.push(await measureCommand([...tool, ...args]));
    }
    const of = (what: keyof Cost): number => median(costs.map((each) => each[what]));
    return { wall: of('wall'), cpu: of('cpu') };
  };
  try {
    return { ours: await cost(ours), peer: peer === null ? null : await cost(peer) };
  } finally {
    rmSync(path);
  }
}

async function makeByReference(
  context: BenchContext,
  path: string,
  options: readonly string[],
): Promise<void> {
  await create(referenceOf(imgTools(context)), { path, size: MIB, format: 'luks', options });
}

export async function unlocking(context: BenchContext): Promise<Result[]> {
  const path = join(context.folder, 'unlock.luks');
  const daemons = await startDaemons(context);
  const results: Result[] = [];
  try {
    await makeByReference(context, path, [SHORT]);
    results.push(await command(context, path, { name: SHORT, rounds: SHORT_ROUNDS }));
    for (const hash of HASHES) {
      const name = `${hash}, ${SHORT}`;
      await makeByReference(context, path, [SHORT, `hash-alg=${hash}`]);
      results.push(await inDaemons(context, daemons, { path, name, rounds: SHORT_ROUNDS }));
    }
    for (const hash of HASHES) {
      const name = `${hash}, 2 s`;
      await makeByReference(context, path, [`hash-alg=${hash}`]);
      if (hash === 'sha256') {
        results.push(await command(context, path, { name: '2 s', rounds: LONG_ROUNDS }));
      }
      results.push(await inDaemons(context, daemons, { path, name, rounds: LONG_ROUNDS }));
    }
    if (makeByCryptsetup(context, path)) {
      const name = 'cryptsetup, 2 s';
      results.push(await inDaemons(context, daemons, { path, name, rounds: LONG_ROUNDS }));
    }
  } finally {
    await daemons.ours.stop();
    await daemons.peer?.stop();
    rmSync(path, { force: true });
  }
  return results;
}

function makeByCryptsetup(context: BenchContext, path: string): boolean {
  const program = context.peer('cryptsetup');
  if (program === null) return false;
  const password = join(context.folder, 'password');
  writeFileSync(password, PASSWORD);
  rmSync(path, { force: true });
  writeFileSync(path, '');
  truncateSync(path, 4 * MIB);
  const args = ['luksFormat', '-q', '--type', 'luks1', '--hash', 'sha256', '--key-file', password];
  execFileSync(program, [...args, path]);
  rmSync(password);
  return true;
}

/** A whole process of each, which opens the image, says how long it is and ends. */
async function command(
  context: BenchContext,
  path: string,
  { name, rounds }: { readonly name: string; readonly rounds: number },
): Promise<Result> {
  const question = `luks: start and unlock, ${name}`;
  context.log(question);
  const args = [...SECRET, '-c', 'length', '--image-opts', encrypted('luks', path)];
  const peer = context.peer('qemu-io');
  const meter = new Meter();
  const ours = [...context.ours, 'io'];
  const times = await alternate(
    { ...context, rounds },
    {
      reset: () => undefined,
      ours: () => meter.command('ours', [...ours, ...args]),
      peer: peer === null ? null : () => meter.command('peer', [peer, ...args]),
    },
  );
  const startUpIncluded = {
    ours: await startUp([...ours, '--version']),
    peer: peer === null ? null : await startUp([peer, '--version']),
  };
  const cpu = meter.cpu(peer !== null);
  return { question, bytes: 0, ...times, cpu, startUpIncluded, verified: null };
}

interface Daemons {
  readonly ours: Daemon;
  readonly peer: Daemon | null;
}

async function startDaemons(context: BenchContext): Promise<Daemons> {
  const real = context.peer('qemu-storage-daemon');
  const daemons = {
    ours: await startDaemon(context, 'ours', []),
    peer: real === null ? null : await startDaemon(context, 'peer', []),
  };
  for (const daemon of Object.values(daemons)) {
    const secret = { 'qom-type': 'secret', id: 'bench', data: PASSWORD } as const;
    await daemon?.client.execute('object-add', secret);
  }
  return daemons;
}

async function inDaemons(
  context: BenchContext,
  daemons: Daemons,
  { path, name, rounds }: { readonly path: string; readonly name: string; readonly rounds: number },
): Promise<Result> {
  const question = `luks: unlock in a daemon, ${name}`;
  context.log(question);
  const meter = new Meter();
  const { ours, peer } = daemons;
  const once = async (who: Who, daemon: Daemon): Promise<number> => {
    const [cpu, begin] = [daemon.cpuSeconds(), performance.now()];
    await daemon.client.execute('blockdev-add', {
      driver: 'luks',
      'node-name': 'disk',
      'key-secret': 'bench',
      file: { driver: 'file', filename: path },
    });
    await daemon.client.execute('blockdev-del', { 'node-name': 'disk' });
    const wall = (performance.now() - begin) / 1000;
    return meter.note(who, { wall, cpu: daemon.cpuSeconds() - cpu });
  };
  const times = await alternate(
    { ...context, rounds },
    {
      reset: () => undefined,
      ours: () => once('ours', ours),
      peer: peer === null ? null : () => once('peer', peer),
    },
  );
  return { question, bytes: 0, ...times, cpu: meter.cpu(peer !== null), ...NONE };
}

export async function creation(context: BenchContext): Promise<Result> {
  const question = `luks: create, ${SHORT}`;
  context.log(question);
  const path = join(context.folder, 'new.luks');
  const image = { path, size: context.size, format: 'luks', options: [SHORT] } as const;
  const { ours, peer } = imgTools(context);
  const meter = new Meter();
  const times = await alternate(context, {
    reset: () => rmSync(path, { force: true }),
    ours: async () => meter.note('ours', await create(ours, image)),
    peer: peer === null ? null : async () => meter.note('peer', await create(peer, image)),
  });
  rmSync(path, { force: true });
  const startUpIncluded = {
    ours: await startUp([...ours, '--version']),
    peer: peer === null ? null : await startUp([...peer, '--version']),
  };
  const cpu = meter.cpu(peer !== null);
  return { question, bytes: 0, ...times, cpu, startUpIncluded, verified: null };
}
