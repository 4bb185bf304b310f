// SPDX-License-Identifier: Apache-2.0
// `blockdev-backup` as its command runs it: every node stands still for a moment, and the source is
// drained until the job has begun.

import type { CommandArguments } from '../../src/api/index.js';
import { prepareBackup } from '../../src/jobs/index.js';
import type { Job, JobRegistry, PreparedJob } from '../../src/jobs/index.js';

export async function startBackup(
  registry: JobRegistry,
  args: CommandArguments<'blockdev-backup'>,
): Promise<Job> {
  const { graph } = registry;
  await graph.standStill();
  const source = graph.find(args.device);
  const section = await graph.drain(source === null ? [] : [source]);
  let prepared: PreparedJob;
  try {
    prepared = await prepareBackup(registry, args);
    await prepared.start();
  } finally {
    section.end();
  }
  await prepared.throughIfEmpty();
  return prepared.job;
}
