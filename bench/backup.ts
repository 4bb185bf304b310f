// SPDX-License-Identifier: Apache-2.0
// How fast does blockdev-backup copy a whole disk to a new image?
// The target is a fresh qcow2. As for stream, our figures contain the flush of the target.
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { startDaemon, timeJob, type Who } from './daemons.js';
import { type Content, warm, writeContent } from './data.js';
import type { Bench, BenchContext, Result } from './harness.js';
import { alternate, sameContent, timeCommand } from './harness.js';
import { startLine } from './stream.js';

export const bench: Bench = {
  name: 'backup',
  question: 'How fast does blockdev-backup copy a whole disk to a new image?',
  async run(context) {
    const results: Result[] = [];
    for (const content of ['dense', 'sparse'] as const) {
      context.log(`backup ${content}`);
      results.push(await measure(context, content));
    }
    return results;
  },
};

async function measure(context: BenchContext, content: Content): Promise<Result> {
  const source = join(context.folder, 'source.qcow2');
  const target = { ours: join(context.folder, 'ours'), peer: join(context.folder, 'peer') };
  const real = context.peer('qemu-storage-daemon');
  const maker = context.peer('qemu-img');
  const tool = maker === null ? [...context.ours, 'img'] : [maker];
  await makeSource(context, content, { tool, path: source });
  const starts: Record<Who, number[]> = { ours: [], peer: [] };
  const runOne = async (who: Who): Promise<number> => {
    const daemon = await startDaemon(context, who, [
      `driver=qcow2,node-name=disk,file.driver=file,file.filename=${source}`,
      `driver=qcow2,node-name=target,file.driver=file,file.filename=${target[who]}`,
    ]);
    starts[who].push(daemon.startSeconds);
    try {
      return await timeJob(daemon.client, 'backup', () =>
        daemon.client.execute('blockdev-backup', {
          'job-id': 'backup',
          device: 'disk',
          target: 'target',
          sync: 'full',
          'auto-dismiss': false,
        }),
      );
    } finally {
      await daemon.stop();
    }
  };
  const times = await alternate(context, {
    async reset(who) {
      rmSync(target[who], { force: true });
      await timeCommand([...tool, 'create', '-q', '-f', 'qcow2', target[who], `${context.size}`]);
      warm(source);
    },
    ours: () => runOne('ours'),
    peer: real === null ? null : () => runOne('peer'),
  });
  context.log(startLine(starts));
  const verified = await sameContent(
    context,
    { path: source, format: 'qcow2' },
    { path: target.ours, format: 'qcow2' },
  );
  for (const path of [source, target.ours, target.peer]) rmSync(path, { force: true });
  const startUpIncluded = { ours: 0, peer: real === null ? null : 0 };
  return {
    question: `blockdev-backup, ${content}`,
    bytes: context.size,
    ...times,
    startUpIncluded,
    verified,
  };
}

async function makeSource(
  context: BenchContext,
  content: Content,
  { tool, path }: { tool: readonly string[]; path: string },
): Promise<void> {
  const plain = join(context.folder, 'plain');
  writeContent(plain, context.size, content);
  await timeCommand([...tool, 'convert', '-f', 'raw', '-O', 'qcow2', plain, path]);
  rmSync(plain);
}
