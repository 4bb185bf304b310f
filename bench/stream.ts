// SPDX-License-Identifier: Apache-2.0
// How fast does block-stream pull a backing file into its overlay?
// Concluded means on disk for Blockwright, so its figures contain the flush of what was copied;
// those of the reference contain only what it writes back before it reports the job concluded.
import { copyFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { type Daemon, startDaemon, timeJob, type Who } from './daemons.js';
import { type Content, warm, writeContent } from './data.js';
import type { Bench, BenchContext, Result } from './harness.js';
import { alternate, median, sameContent, timeCommand } from './harness.js';

export const bench: Bench = {
  name: 'stream',
  question: 'How fast does block-stream pull a backing file into its overlay?',
  async run(context) {
    const results: Result[] = [];
    for (const content of ['dense', 'sparse'] as const) {
      context.log(`stream ${content}`);
      results.push(await measure(context, content));
    }
    return results;
  },
};

async function measure(context: BenchContext, content: Content): Promise<Result> {
  const files = await makeChain(context, content);
  const starts: Record<Who, number[]> = { ours: [], peer: [] };
  const runOne = async (who: Who): Promise<number> => {
    const daemon = await startDaemon(context, who, [
      `driver=qcow2,node-name=disk,file.driver=file,file.filename=${files.overlay[who]}`,
    ]);
    starts[who].push(daemon.startSeconds);
    try {
      return await timeJob(daemon.client, 'stream', () => startStream(daemon));
    } finally {
      await daemon.stop();
    }
  };
  const real = context.peer('qemu-storage-daemon');
  const times = await alternate(context, {
    reset(who) {
      copyFileSync(files.fresh, files.overlay[who]);
      warm(files.base);
    },
    ours: () => runOne('ours'),
    peer: real === null ? null : () => runOne('peer'),
  });
  context.log(startLine(starts));
  const verified = await sameContent(
    context,
    { path: files.base, format: 'qcow2' },
    { path: files.overlay.ours, format: 'qcow2' },
  );
  for (const path of [files.base, files.fresh, ...Object.values(files.overlay)]) {
    rmSync(path, { force: true });
  }
  const startUpIncluded = { ours: 0, peer: real === null ? null : 0 };
  return {
    question: `block-stream, ${content}`,
    bytes: context.size,
    ...times,
    startUpIncluded,
    verified,
  };
}

function startStream(daemon: Daemon): Promise<unknown> {
  return daemon.client.execute('block-stream', {
    'job-id': 'stream',
    device: 'disk',
    'auto-dismiss': false,
  });
}

/** What starting the daemons took, which no figure contains. */
export function startLine(starts: Readonly<Record<Who, readonly number[]>>): string {
  const text = (['ours', 'peer'] as const)
    .filter((who) => starts[who].length > 0)
    .map((who) => `${(median(starts[who]) * 1000).toFixed(0)} ms ${who}`);
  return `  start of the daemon, not in the figures: ${text.join(', ')}`;
}

interface Chain {
  readonly base: string;
  readonly fresh: string;
  readonly overlay: Readonly<Record<Who, string>>;
}

/** The real tool makes the images when it is there, so that both daemons get the same ones. */
async function makeChain(context: BenchContext, content: Content): Promise<Chain> {
  const at = (name: string): string => join(context.folder, name);
  const chain: Chain = {
    base: at('base.qcow2'),
    fresh: at('fresh.qcow2'),
    overlay: { ours: at('ours.qcow2'), peer: at('peer.qcow2') },
  };
  const plain = at('plain');
  writeContent(plain, context.size, content);
  const real = context.peer('qemu-img');
  const tool = real === null ? [...context.ours, 'img'] : [real];
  await timeCommand([...tool, 'convert', '-f', 'raw', '-O', 'qcow2', plain, chain.base]);
  rmSync(plain);
  await timeCommand([
    ...tool, 'create', '-q', '-f', 'qcow2', '-b', chain.base, '-F', 'qcow2', chain.fresh,
  ]);
  return chain;
}
