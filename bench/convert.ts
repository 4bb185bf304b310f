// SPDX-License-Identifier: Apache-2.0
// How fast does convert copy an image to another format?
// Wall time of the whole command, start-up included (and reported apart). The cache mode is the
// default of both tools: nothing is flushed at the end.
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { type Content, warm, writeContent } from './data.js';
import type { Bench, BenchContext, Result } from './harness.js';
import { alternate, sameContent, startUp, timeCommand } from './harness.js';

interface Case {
  readonly content: Content;
  readonly from: 'raw' | 'qcow2';
  readonly to: 'raw' | 'qcow2';
  readonly compress: boolean;
}

const CASES: readonly Case[] = [
  { content: 'dense', from: 'raw', to: 'qcow2', compress: false },
  { content: 'sparse', from: 'raw', to: 'qcow2', compress: false },
  { content: 'dense', from: 'qcow2', to: 'raw', compress: false },
  { content: 'sparse', from: 'qcow2', to: 'raw', compress: false },
  { content: 'text', from: 'raw', to: 'qcow2', compress: true },
  { content: 'text', from: 'qcow2', to: 'raw', compress: true },
];

/** Compression costs much more per byte, so its disks are smaller. */
const COMPRESSED_SHARE = 4;

export const bench: Bench = {
  name: 'convert',
  question: 'How fast does convert copy an image to another format?',
  async run(context) {
    const real = context.peer('qemu-img');
    const startUpIncluded = {
      ours: await startUp([...context.ours, 'img', '--version']),
      peer: real === null ? null : await startUp([real, '--version']),
    };
    const results: Result[] = [];
    for (const item of CASES) {
      context.log(`convert ${item.content} ${item.from} → ${item.to}${item.compress ? ' -c' : ''}`);
      results.push({ ...(await measure(context, item)), startUpIncluded });
    }
    return results;
  },
};

async function measure(
  context: BenchContext,
  item: Case,
): Promise<Omit<Result, 'startUpIncluded'>> {
  const size = item.compress ? context.size / COMPRESSED_SHARE : context.size;
  const real = context.peer('qemu-img');
  const ours = [...context.ours, 'img'];
  const source = join(context.folder, `source.${item.from}`);
  await makeSource(context, item, { size, path: source });
  const target = { ours: join(context.folder, 'ours'), peer: join(context.folder, 'peer') };
  const packed = item.compress && item.to === 'qcow2' ? ['-c'] : [];
  const command = (tool: readonly string[], path: string): readonly string[] => [
    ...tool, 'convert', ...packed, '-f', item.from, '-O', item.to, source, path,
  ];
  const times = await alternate(context, {
    reset(who) {
      rmSync(target[who], { force: true });
      warm(source);
    },
    ours: () => timeCommand(command(ours, target.ours)),
    peer: real === null ? null : () => timeCommand(command([real], target.peer)),
  });
  const verified = await sameContent(
    context,
    { path: source, format: item.from },
    { path: target.ours, format: item.to },
  );
  for (const path of [source, target.ours, target.peer]) rmSync(path, { force: true });
  const how = `${item.from} → ${item.to}${packed.length > 0 ? ' -c' : ''}`;
  const what = item.compress && item.from === 'qcow2' ? 'compressed' : item.content;
  return { question: `convert ${how}, ${what}`, bytes: size, ...times, verified };
}

/** Sources in qcow2 are made by the real tool when it is there, so that both read the same file. */
async function makeSource(
  context: BenchContext,
  item: Case,
  { size, path }: { size: number; path: string },
): Promise<void> {
  if (item.from === 'raw') return writeContent(path, size, item.content);
  const plain = join(context.folder, 'plain');
  writeContent(plain, size, item.content);
  const real = context.peer('qemu-img');
  const tool = real === null ? [...context.ours, 'img'] : [real];
  const packed = item.compress ? ['-c'] : [];
  await timeCommand([...tool, 'convert', ...packed, '-f', 'raw', '-O', 'qcow2', plain, path]);
  rmSync(plain);
}
