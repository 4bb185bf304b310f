// SPDX-License-Identifier: Apache-2.0
// How fast does block-stream pull a backing file into its overlay?
import { copyFileSync } from 'node:fs';
import { join } from 'node:path';
import { type Content, warm } from './data.js';
import type { Bench, BenchContext, Result } from './harness.js';
import { makeEmpty, makeImage, measureJob, qcow2Node } from './job-runs.js';

export const bench: Bench = {
  name: 'stream',
  question: 'How fast does block-stream pull a backing file into its overlay?',
  async run(context) {
    return [await measure(context, 'dense'), await measure(context, 'sparse')];
  },
};

async function measure(context: BenchContext, content: Content): Promise<Result> {
  const at = (name: string): string => join(context.folder, name);
  const [base, fresh] = [at('base.qcow2'), at('fresh.qcow2')];
  const overlay = { ours: at('ours.qcow2'), peer: at('peer.qcow2') };
  await makeImage(context, content, base);
  await makeEmpty(context, fresh, base);
  return measureJob(context, {
    question: `block-stream, ${content}`,
    blockdevs: (who) => [qcow2Node('disk', overlay[who])],
    reset(who) {
      copyFileSync(fresh, overlay[who]);
      warm(base);
    },
    start: (client, id) =>
      client.execute('block-stream', { 'job-id': id, device: 'disk', 'auto-dismiss': false }),
    target: (who) => overlay[who],
    expected: base,
    files: [base, fresh, ...Object.values(overlay)],
  });
}
