// SPDX-License-Identifier: Apache-2.0
// `blockdev-backup`: checks the arguments in the reference's order and starts the job.
//
// Bitmap modes are refused by name until persistent and frozen bitmaps exist.

import { BlockError } from '../../base/index.js';
import { findBitmap, requireOperation } from '../../block/index.js';
import type { Node } from '../../block/index.js';
import { copyUnit } from '../../block/copy/index.js';
import type { Job } from '../job.js';
import type { OnError } from '../options.js';
import type { JobTransaction } from '../job-transaction.js';
import { prepareWork, requireFilterName } from '../start.js';
import type { PreparedJob } from '../start.js';
import type { JobRegistry } from '../registry.js';
import { BackupWork } from './backup-work.js';
import type { BackupPlan } from './backup-work.js';
import type { BackupOptions } from './options.js';

export { backupOptions } from './options.js';

const DEFAULT_WORKERS = 64;
const MAX_WORKERS = 2 ** 31 - 1;

export async function startBackup(registry: JobRegistry, args: BackupOptions): Promise<Job> {
  const { graph } = registry;
  const source = registry.node(args.device);
  registry.node(args.target);
  // The reference drains the source once to look and once to act; running jobs show both.
  (await graph.drain([source])).end();
  const section = await graph.drain([source]);
  try {
    const prepared = await prepareBackup(registry, args);
    await prepared.start();
    return prepared.job;
  } finally {
    section.end();
  }
}

/** Who calls it holds the source drained until the job is started or thrown away. */
export async function prepareBackup(
  registry: JobRegistry,
  args: BackupOptions,
  transaction?: JobTransaction,
): Promise<PreparedJob> {
  const plan = planBackup(registry, args);
  const work = new BackupWork(registry, plan);
  await work.insertFilter();
  return await prepareWork(registry, work, {
    setup: {
      id: args['job-id'] ?? '',
      type: 'backup',
      blockJob: true,
      autoFinalize: args['auto-finalize'] ?? true,
      autoDismiss: args['auto-dismiss'] ?? true,
      ...(transaction === undefined ? {} : { transaction }),
    },
    speed: args.speed ?? 0,
    startsDrained: true,
  });
}

function planBackup(registry: JobRegistry, args: BackupOptions): BackupPlan {
  const source = registry.node(args.device);
  const target = registry.node(args.target);
  const sync = syncMode(source, args);
  if (source === target) {
    throw new BlockError('invalid-option', 'Source and target cannot be the same');
  }
  const compress = args.compress ?? false;
  if (compress && !canCompress(target)) {
    throw new BlockError(
      'unsupported',
      `Compression is not supported for this drive ${target.name}`,
    );
  }
  requireOperation(source, 'backup-source');
  requireOperation(target, 'backup-target');
  const workers = workersOf(args);
  const chunk = chunkOf(args);
  if (source.length !== target.length) {
    throw new BlockError('invalid-option', 'Source and target image have different sizes');
  }
  const unit = copyUnit(target);
  requireChunk(chunk, unit);
  requireFilterName(registry, args['filter-node-name']);
  return {
    source,
    target,
    sync,
    compress,
    unit,
    workers,
    maxChunk: chunk === 0 ? Infinity : chunk,
    filterName: args['filter-node-name'] ?? null,
    onSourceError: errorPolicy(args, 'on-source-error'),
    onTargetError: errorPolicy(args, 'on-target-error'),
  };
}

function canCompress(target: Node): boolean {
  let node: Node | null = target;
  while (node !== null && node.driver.supports.compressedWrite === 'pass') {
    node = node.filtered ?? node.primary;
  }
  return node?.driver.supports.compressedWrite === 'native';
}

function syncMode(source: Node, args: BackupOptions): BackupPlan['sync'] {
  const { sync, bitmap } = args;
  if (bitmap !== undefined) {
    if (findBitmap(source, bitmap) === null) {
      throw new BlockError('not-found', `Bitmap '${bitmap}' could not be found`);
    }
    throw new BlockError('unsupported', `Backup with a bitmap ('${bitmap}') is not supported`);
  }
  if (sync === 'incremental' || sync === 'bitmap') {
    throw new BlockError(
      'invalid-option',
      `must provide a valid bitmap name for '${sync}' sync mode`,
    );
  }
  if (args['bitmap-mode'] !== undefined) {
    throw new BlockError('invalid-option', 'Cannot specify bitmap sync mode without a bitmap');
  }
  return sync;
}

function workersOf(args: BackupOptions): number {
  const workers = Number(args['x-perf']?.['max-workers'] ?? DEFAULT_WORKERS);
  if (workers < 1 || workers > MAX_WORKERS) {
    throw new BlockError('invalid-option', `max-workers must be between 1 and ${MAX_WORKERS}`);
  }
  return workers;
}

function chunkOf(args: BackupOptions): number {
  const chunk = Number(args['x-perf']?.['max-chunk'] ?? 0);
  if (chunk < 0) {
    throw new BlockError(
      'invalid-option',
      'max-chunk must be zero (which means no limit) or positive',
    );
  }
  return chunk;
}

function requireChunk(chunk: number, unit: number): void {
  if (chunk === 0 || chunk >= unit) return;
  throw new BlockError(
    'invalid-option',
    `Required max-chunk (${chunk}) is less than backup cluster size (${unit})`,
  );
}

/** Ignoring an error would leave a hole in the point in time: refused. */
function errorPolicy(args: BackupOptions, side: 'on-source-error' | 'on-target-error'): OnError {
  const policy = args[side] ?? 'report';
  if (policy === 'ignore') {
    throw new BlockError('unsupported', `Parameter '${side}' does not support 'ignore' here`);
  }
  return policy;
}
