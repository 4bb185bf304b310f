// SPDX-License-Identifier: Apache-2.0
// What does work on metadata cost? check, map, measure and snapshot -c on an image whose clusters
// lie in random order (128 times --size: 64 GiB by default; its data are holes, so that nothing
// but tables is read), and an image of 1 TiB that costs by what is allocated in it.
// Wall time of the whole command, start-up included (and reported apart).
import { execFileSync } from 'node:child_process';
import { readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { warm } from './data.js';
import type { Bench, BenchContext, Result } from './harness.js';
import { alternate, sameContent, startUp, timeCommand, timeOutput } from './harness.js';
import { writeRandomOrder } from './metadata-images.js';

const VIRTUAL_BYTES = 128;
const LARGE = 2 ** 40;
/** Writes of the large image, all over it. */
const SPREAD = 16;

type Measured = Omit<Result, 'startUpIncluded'>;

export const bench: Bench = {
  name: 'metadata',
  question: 'What does work on metadata cost?',
  async run(context) {
    const real = context.peer('qemu-img');
    const startUpIncluded = {
      ours: await startUp([...context.ours, 'img', '--version']),
      peer: real === null ? null : await startUp([real, '--version']),
    };
    const results = [...(await randomOrder(context)), ...(await largeImage(context))];
    return results.map((result) => ({ ...result, startUpIncluded }));
  },
};

interface Question {
  readonly question: string;
  readonly bytes: number;
  /** Arguments of img, made anew for each run. */
  args(who: 'ours' | 'peer'): readonly string[];
  /** Before each run. */
  reset?(who: 'ours' | 'peer'): void;
  /** After all runs; the outputs of both are compared without it. */
  verify?(): Promise<boolean>;
}

async function ask(context: BenchContext, item: Question): Promise<Measured> {
  const { question, bytes } = item;
  context.log(question);
  const real = context.peer('qemu-img');
  const output = { ours: join(context.folder, 'out.ours'), peer: join(context.folder, 'out.peer') };
  const times = await alternate(context, {
    reset: (who) => item.reset?.(who),
    ours: () => timeOutput([...context.ours, 'img', ...item.args('ours')], output.ours),
    peer:
      real === null ? null : () => timeOutput([real, ...item.args('peer')], output.peer),
  });
  const verified = await verify(item, real === null ? null : output);
  for (const path of [output.ours, output.peer]) rmSync(path, { force: true });
  return { question, bytes, ...times, verified };
}

async function verify(
  item: Question,
  output: { readonly ours: string; readonly peer: string } | null,
): Promise<boolean | null> {
  if (item.verify !== undefined) return item.verify();
  if (output === null) return null;
  return readFileSync(output.ours).equals(readFileSync(output.peer));
}

async function randomOrder(context: BenchContext): Promise<Measured[]> {
  const image = join(context.folder, 'random-order.qcow2');
  const copies = {
    ours: join(context.folder, 'copy.ours.qcow2'),
    peer: join(context.folder, 'copy.peer.qcow2'),
  };
  const bytes = context.size * VIRTUAL_BYTES;
  writeRandomOrder(image, bytes);
  const onImage = (verb: string, ...options: readonly string[]): Question => ({
    question: `${verb}, random order`,
    bytes,
    args: () => [verb, ...options, image],
  });
  const results = [
    await ask(context, onImage('check')),
    await ask(context, onImage('map', '--output=json')),
    await ask(context, onImage('measure', '-O', 'qcow2')),
  ];
  results.push(
    await ask(context, {
      question: 'snapshot -c, random order',
      bytes,
      args: (who) => ['snapshot', '-c', 'first', copies[who]],
      reset(who) {
        // The data are holes: only tables are copied.
        execFileSync('cp', ['--sparse=always', image, copies[who]]);
      },
      verify: () => isSound(context, copies.ours),
    }),
  );
  for (const path of [image, copies.ours, copies.peer]) rmSync(path, { force: true });
  return results;
}

async function isSound(context: BenchContext, path: string): Promise<boolean> {
  try {
    await timeCommand([...context.ours, 'img', 'check', '-q', path]);
    return true;
  } catch {
    return false;
  }
}

async function largeImage(context: BenchContext): Promise<Measured[]> {
  const image = join(context.folder, 'large.qcow2');
  const made = { ours: join(context.folder, 'made.ours'), peer: join(context.folder, 'made.peer') };
  const options = ['-f', 'qcow2', '-o', 'cluster_size=65536'];
  await timeCommand([...context.ours, 'img', 'create', '-q', ...options, image, `${LARGE}`]);
  const writes = Array.from({ length: SPREAD }, (_, index) => [
    '-c', `write -q -P ${index + 1} ${Math.floor((LARGE / SPREAD) * index)} 1M`,
  ]).flat();
  await timeCommand([...context.ours, 'io', '-f', 'qcow2', ...writes, image]);
  warm(image);
  const remove = (who: 'ours' | 'peer'): void => rmSync(made[who], { force: true });
  const onImage = (verb: string, ...rest: readonly string[]): Question => ({
    question: `${verb}, 1 TiB with little in it`,
    bytes: LARGE,
    args: () => [verb, ...rest, image],
  });
  const results = [
    await ask(context, {
      question: 'create, 1 TiB',
      bytes: LARGE,
      args: (who) => ['create', '-q', ...options, made[who], `${LARGE}`],
      reset: remove,
      verify: () => isSound(context, made.ours),
    }),
    await ask(context, onImage('check')),
    await ask(context, onImage('map', '--output=json')),
    await ask(context, onImage('measure', '-O', 'qcow2')),
    await ask(context, onImage('info', '--output=json')),
    await ask(context, {
      question: 'convert, 1 TiB with little in it',
      bytes: LARGE,
      args: (who) => ['convert', '-O', 'qcow2', image, made[who]],
      reset: remove,
      verify: () =>
        sameContent(
          context, { path: image, format: 'qcow2' }, { path: made.ours, format: 'qcow2' },
        ),
    }),
  ];
  for (const path of [image, made.ours, made.peer]) rmSync(path, { force: true });
  return results;
}
