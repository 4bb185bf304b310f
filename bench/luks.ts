// SPDX-License-Identifier: Apache-2.0
// How fast are encrypted images copied, made and unlocked?
// Wall and processor time of whole commands. What it costs to start and to unlock the image is
// measured apart, on an image alike, and left out of the ratios "no start-up" of the copies. Both
// contestants copy to and from images with the same header. Other ciphers and formats than the
// usual are copied with a quarter of the size, in three rounds at the most.
import { copyFileSync, rmSync, truncateSync } from 'node:fs';
import { join } from 'node:path';
import { type Cost, Meter, startCost } from './costs.js';
import { warm, writeContent } from './data.js';
import type { Bench, BenchContext, Result } from './harness.js';
import { alternate, timeCommand } from './harness.js';
import { create, encrypted, imgTools, raw, referenceOf, SECRET } from './luks-images.js';
import type { NewImage } from './luks-images.js';
import { creation, openingCost, unlocking } from './luks-unlock.js';

const MIB = 1024 * 1024;
const FEW_ROUNDS = 3;

const OTHER_CIPHERS: Readonly<Record<string, readonly string[]>> = {
  'aes-128 xts': ['cipher-alg=aes-128'],
  'cbc essiv': ['cipher-mode=cbc', 'ivgen-alg=essiv', 'ivgen-hash-alg=sha256'],
  'cbc plain64': ['cipher-mode=cbc', 'ivgen-alg=plain64'],
  ecb: ['cipher-mode=ecb', 'ivgen-alg=plain64'],
};

type Both<T> = Readonly<{ ours: T; peer: T | null }>;

export const bench: Bench = {
  name: 'luks',
  question: 'How fast are encrypted images copied, made and unlocked?',
  async run(context) {
    const quarter = Math.ceil(context.size / 4 / MIB) * MIB;
    const few = { ...context, size: quarter, rounds: Math.min(context.rounds, FEW_ROUNDS) };
    const opening = await costOfOpening(context);
    const results = await copies(context, { name: 'luks', format: 'luks' }, opening);
    const others: Kind[] = [{ name: 'qcow2 with luks', format: 'qcow2' }];
    for (const [cipher, options] of Object.entries(OTHER_CIPHERS)) {
      others.push({ name: `luks ${cipher}`, format: 'luks', options });
    }
    for (const kind of others) results.push(...(await copies(few, kind, opening)));
    results.push(await creation(context), ...(await unlocking(context)));
    return results;
  },
};

/** Of starting and unlocking one image, and of starting alone. */
interface Opening {
  readonly whole: Both<Cost>;
  readonly start: Both<Cost>;
}

async function costOfOpening(context: BenchContext): Promise<Opening> {
  const { ours, peer } = imgTools(context);
  const start = {
    ours: await startCost([...ours, '--version']),
    peer: peer === null ? null : await startCost([...peer, '--version']),
  };
  return { whole: await openingCost(context), start };
}

interface Kind extends Pick<NewImage, 'format'> {
  /** In questions. */
  readonly name: string;
  readonly options?: readonly string[];
}

interface Copy {
  readonly question: string;
  readonly from: string;
  readonly to: string;
  /** Puts the target back, and warms the source. */
  reset(): void;
  /** Images that are unlocked. */
  readonly images: 1 | 2;
}

/** Into an image, out of it and, for the usual kind, from one to another. */
async function copies(context: BenchContext, kind: Kind, opening: Opening): Promise<Result[]> {
  const name = (part: string): string => join(context.folder, part);
  const [source, image, full, target] = [name('source'), name('image'), name('full'), name('to')];
  const open = (path: string): string => encrypted(kind.format, path);
  const { size } = context;
  const options = ['iter-time=10', ...(kind.options ?? [])];
  const made = { path: image, size, format: kind.format, options };
  const empty = (from: string): void => {
    copyFileSync(image, target);
    warm(from);
  };
  const plain = (): void => {
    rmSync(target, { force: true });
    copyFileSync('/dev/null', target);
    truncateSync(target, size);
    warm(full);
  };
  const usual = kind.name === 'luks';
  try {
    writeContent(source, size, 'dense');
    await create(referenceOf(imgTools(context)), made);
    const one = { images: 1 } as const;
    const into = { question: `convert raw → ${kind.name}`, from: raw(source), to: open(target) };
    const results = [await copy(context, { ...into, ...one, reset: () => empty(source) }, opening)];
    // What was encrypted last is what is decrypted next.
    copyFileSync(target, full);
    const out = { question: `convert ${kind.name} → raw`, from: open(full), to: raw(target) };
    results.push(await copy(context, { ...out, ...one, reset: plain }, opening));
    if (!usual) return results;
    const again = { question: 'convert luks → luks', from: open(full), to: open(target) };
    const both = { ...again, images: 2, reset: () => empty(full) } as const;
    return [...results, await copy(context, both, opening)];
  } finally {
    for (const path of [source, image, full, target]) rmSync(path, { force: true });
  }
}

async function copy(context: BenchContext, item: Copy, opening: Opening): Promise<Result> {
  const { question, from, to } = item;
  context.log(question);
  const { ours, peer } = imgTools(context);
  const args = ['convert', ...SECRET, '-n', '--image-opts', '--target-image-opts', from, to];
  const meter = new Meter();
  const times = await alternate(context, {
    reset: () => item.reset(),
    ours: () => meter.command('ours', [...ours, ...args]),
    peer: peer === null ? null : () => meter.command('peer', [...peer, ...args]),
  });
  return {
    question,
    bytes: context.size,
    ...times,
    startUpIncluded: included(item, opening, 'wall'),
    cpu: meter.cpu(peer !== null),
    startUpCpu: included(item, opening, 'cpu'),
    verified: await isSame(context, [from, to]),
  };
}

/** Seconds of a copy's figures that pass before it begins. */
function included({ images }: Copy, { whole, start }: Opening, what: keyof Cost): Both<number> {
  const sum = (all: Cost, begin: Cost): number => images * all[what] - (images - 1) * begin[what];
  const { peer } = whole;
  return {
    ours: sum(whole.ours, start.ours),
    peer: peer === null || start.peer === null ? null : sum(peer, start.peer),
  };
}

async function isSame(context: BenchContext, images: readonly string[]): Promise<boolean> {
  const tool = referenceOf(imgTools(context));
  try {
    await timeCommand([...tool, 'compare', ...SECRET, '--image-opts', ...images]);
    return true;
  } catch {
    return false;
  }
}
