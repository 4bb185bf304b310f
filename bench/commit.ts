// SPDX-License-Identifier: Apache-2.0
// How fast does block-commit push an overlay into its empty base? Of the active layer, where the
// job is told to complete as soon as it is READY, and of an intermediate one below an empty top.
import { copyFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Content, warm } from './data.js';
import type { Bench, BenchContext, Result } from './harness.js';
import { timeCommand } from './harness.js';
import { imageTool, makeEmpty, makeImage, measureJob, qcow2Node } from './job-runs.js';

export const bench: Bench = {
  name: 'commit',
  question: 'How fast does block-commit push an overlay into its empty base?',
  async run(context) {
    const results: Result[] = [];
    for (const layer of ['active', 'intermediate'] as const) {
      for (const content of ['dense', 'sparse'] as const) {
        results.push(await measure(context, layer, content));
      }
    }
    return results;
  },
};

async function measure(
  context: BenchContext,
  layer: 'active' | 'intermediate',
  content: Content,
): Promise<Result> {
  const at = (name: string): string => join(context.folder, name);
  const [original, empty, fresh] = [at('content.qcow2'), at('empty.qcow2'), at('fresh.qcow2')];
  const base = { ours: at('base-ours.qcow2'), peer: at('base-peer.qcow2') };
  const middle = { ours: at('middle-ours.qcow2'), peer: at('middle-peer.qcow2') };
  const top = { ours: at('top-ours.qcow2'), peer: at('top-peer.qcow2') };
  await makeImage(context, content, original);
  await makeEmpty(context, empty);
  copyFileSync(empty, base.ours);
  const rebase = [...imageTool(context), 'rebase', '-u', '-f', 'qcow2', '-F', 'qcow2'];
  for (const who of ['ours', 'peer'] as const) {
    copyFileSync(original, middle[who]);
    await timeCommand([...rebase, '-b', base[who], middle[who]]);
  }
  await makeEmpty(context, fresh, middle.ours);
  const isActive = layer === 'active';
  return measureJob(context, {
    question: `block-commit ${layer}, ${content}`,
    blockdevs: (who) => [
      qcow2Node('base', base[who]),
      qcow2Node(isActive ? 'disk' : 'middle', middle[who], 'base'),
      ...(isActive ? [] : [qcow2Node('disk', top[who], 'middle')]),
    ],
    reset(who) {
      copyFileSync(empty, base[who]);
      copyFileSync(fresh, top[who]);
      warm(middle[who]);
    },
    start: (client, id) =>
      client.execute('block-commit', {
        'job-id': id,
        device: 'disk',
        ...(isActive ? {} : { 'top-node': 'middle' }),
        'base-node': 'base',
        'auto-dismiss': false,
      }),
    target: (who) => base[who],
    expected: original,
    files: [original, empty, fresh, ...[base, middle, top].flatMap((each) => Object.values(each))],
  });
}
