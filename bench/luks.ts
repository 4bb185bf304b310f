// SPDX-License-Identifier: Apache-2.0
// How fast are encrypted images copied, made and unlocked?
// Wall time of the whole command. What it costs to start and to unlock the image is measured apart
// on the same image, and left out of the ratio "no start-up" of the copies. Both contestants copy
// to and from images with the same header; new ones are made with iter-time=10.
import { copyFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { warm, writeContent } from './data.js';
import type { Bench, BenchContext, Contestants, Result } from './harness.js';
import { alternate, median, startUp, timeCommand } from './harness.js';

const SECRET = ['--object', 'secret,id=bench,data=open sesame'];
const OPTIONS = ['-f', 'luks', '-o', 'key-secret=bench,iter-time=10'];
/** The reference measures its own processor time and gives up when the machine is busy. */
const TRIES = 20;
const UNLOCKS = 5;

type Who = 'ours' | 'peer';
/** Null for the peer when it is not there. */
type Tools = Readonly<Record<Who, readonly string[] | null>>;

export const bench: Bench = {
  name: 'luks',
  question: 'How fast are encrypted images copied, made and unlocked?',
  async run(context) {
    const real = context.peer('qemu-img');
    const tools: Tools = {
      ours: [...context.ours, 'img'],
      peer: real === null ? null : [real],
    };
    const image = join(context.folder, 'image.luks');
    try {
      await create(tools.peer ?? [...context.ours, 'img'], image, context.size);
      const unlocking = await unlock(context, tools, image);
      const included = {
        ours: median(unlocking.ours),
        peer: unlocking.peer === null ? null : median(unlocking.peer),
      };
      return [
        ...(await copy(context, tools, { image, included })),
        unlocking,
        await creation(context, tools),
      ];
    } finally {
      rmSync(image, { force: true });
    }
  },
};

function luks(filename: string): string {
  return `driver=luks,key-secret=bench,file.filename=${filename}`;
}

function raw(filename: string): string {
  return `driver=raw,file.filename=${filename}`;
}

/** Seconds of the first try that went well. */
async function create(tool: readonly string[], path: string, size: number): Promise<number> {
  for (let tries = 1; ; tries += 1) {
    try {
      return await timeCommand([...tool, 'create', '-q', ...SECRET, ...OPTIONS, path, `${size}`]);
    } catch (error) {
      if (tries === TRIES) throw error;
    }
  }
}

function runsOf(
  tools: Tools,
  run: (tool: readonly string[], who: Who) => Promise<number>,
): Pick<Contestants, 'ours' | 'peer'> {
  const { ours, peer } = tools;
  return {
    ours: () => run(ours ?? [], 'ours'),
    peer: peer === null ? null : () => run(peer, 'peer'),
  };
}

async function copy(
  context: BenchContext,
  tools: Tools,
  { image, included }: { image: string; included: Result['startUpIncluded'] },
): Promise<Result[]> {
  const [source, encrypted] = [join(context.folder, 'source'), join(context.folder, 'encrypted')];
  const results: Result[] = [];
  writeContent(source, context.size, 'dense');
  copyFileSync(image, encrypted);
  for (const to of ['luks', 'raw'] as const) {
    const question = to === 'luks' ? 'convert raw → luks' : 'convert luks → raw';
    context.log(question);
    const target = join(context.folder, 'target');
    const how =
      to === 'luks'
        ? ['-n', '--target-image-opts', raw(source), luks(target)]
        : ['-O', 'raw', luks(encrypted), target];
    const args = ['convert', ...SECRET, '--image-opts', ...how];
    const times = await alternate(context, {
      reset() {
        rmSync(target, { force: true });
        if (to === 'luks') copyFileSync(image, target);
        warm(to === 'luks' ? source : encrypted);
      },
      ...runsOf(tools, (tool) => timeCommand([...tool, ...args])),
    });
    const pair = to === 'luks' ? [luks(target), raw(source)] : [raw(target), raw(source)];
    const verified = await isSame(tools, pair);
    results.push({ question, bytes: context.size, ...times, startUpIncluded: included, verified });
    // What was encrypted last is what is decrypted next.
    if (to === 'luks') copyFileSync(target, encrypted);
    rmSync(target);
  }
  for (const path of [source, encrypted]) rmSync(path);
  return results;
}

async function isSame(tools: Tools, images: readonly string[]): Promise<boolean> {
  const tool = tools.peer ?? tools.ours ?? [];
  try {
    await timeCommand([...tool, 'compare', ...SECRET, '--image-opts', ...images]);
    return true;
  } catch {
    return false;
  }
}

/** One command that opens the image and reads nothing of it. */
async function unlock(context: BenchContext, tools: Tools, image: string): Promise<Result> {
  const question = 'luks: start and unlock';
  context.log(question);
  const args = ['map', '--output=json', ...SECRET, '--image-opts', luks(image)];
  const times = await alternate(
    { ...context, rounds: Math.max(UNLOCKS, context.rounds) },
    { reset: () => undefined, ...runsOf(tools, (tool) => timeCommand([...tool, ...args])) },
  );
  return { question, bytes: 0, ...times, startUpIncluded: await starts(tools), verified: null };
}

async function creation(context: BenchContext, tools: Tools): Promise<Result> {
  const question = 'luks: create, iter-time=10';
  context.log(question);
  const path = join(context.folder, 'new.luks');
  const times = await alternate(context, {
    reset: () => rmSync(path, { force: true }),
    ...runsOf(tools, (tool) => create(tool, path, context.size)),
  });
  rmSync(path, { force: true });
  return { question, bytes: 0, ...times, startUpIncluded: await starts(tools), verified: null };
}

async function starts(tools: Tools): Promise<Result['startUpIncluded']> {
  const { ours, peer } = tools;
  return {
    ours: await startUp([...(ours ?? []), '--version']),
    peer: peer === null ? null : await startUp([...peer, '--version']),
  };
}
