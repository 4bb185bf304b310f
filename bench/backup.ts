// SPDX-License-Identifier: Apache-2.0
// How fast does blockdev-backup copy a whole disk to a new image? The target is a fresh qcow2.
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { type Content, warm } from './data.js';
import type { Bench, BenchContext, Result } from './harness.js';
import { makeEmpty, makeImage, measureJob, qcow2Node } from './job-runs.js';

export const bench: Bench = {
  name: 'backup',
  question: 'How fast does blockdev-backup copy a whole disk to a new image?',
  async run(context) {
    return [await measure(context, 'dense'), await measure(context, 'sparse')];
  },
};

async function measure(context: BenchContext, content: Content): Promise<Result> {
  const source = join(context.folder, 'source.qcow2');
  const target = { ours: join(context.folder, 'ours'), peer: join(context.folder, 'peer') };
  await makeImage(context, content, source);
  return measureJob(context, {
    question: `blockdev-backup, ${content}`,
    blockdevs: (who) => [qcow2Node('disk', source), qcow2Node('target', target[who])],
    async reset(who) {
      rmSync(target[who], { force: true });
      await makeEmpty(context, target[who]);
      warm(source);
    },
    start: (client, id) =>
      client.execute('blockdev-backup', {
        'job-id': id,
        device: 'disk',
        target: 'target',
        sync: 'full',
        'auto-dismiss': false,
      }),
    target: (who) => target[who],
    expected: source,
    files: [source, ...Object.values(target)],
  });
}
