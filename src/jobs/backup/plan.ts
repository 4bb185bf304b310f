// SPDX-License-Identifier: Apache-2.0
// What a backup is asked to do: its arguments checked in the reference's order, before anything is
// changed.

import { BlockError } from '../../base/index.js';
import { checkBitmapUsable, findBitmap, requireOperation } from '../../block/index.js';
import type { Node } from '../../block/index.js';
import { copyUnit } from '../../block/copy/index.js';
import type { OnError } from '../options.js';
import { requireFilterName } from '../start.js';
import type { JobRegistry } from '../registry.js';
import type { BackupOptions, DriveBackupOptions } from './options.js';
import type { BitmapChoice } from './sync-bitmap.js';

export interface BackupPlan {
  readonly source: Node;
  readonly target: Node;
  readonly sync: 'full' | 'top' | 'none' | 'bitmap';
  readonly bitmap: BitmapChoice | null;
  readonly compress: boolean;
  /** What has been copied is discarded in the source. */
  readonly discardsSource: boolean;
  /** Bytes of one copy unit. */
  readonly unit: number;
  /** The host may copy by itself, where the target is not compressed. */
  readonly hostCopies: boolean;
  readonly workers: number;
  /** Bytes of one batch at most; Infinity = no limit of the user's. */
  readonly maxChunk: number;
  readonly filterName: string | null;
  readonly onSourceError: OnError;
  readonly onTargetError: OnError;
  /** The job opened the target: it is closed at the end. */
  readonly ownsTarget: boolean;
}

/** What both commands have. */
export type BackupArguments = BackupOptions | DriveBackupOptions;

export interface BackupEnds {
  readonly source: Node;
  readonly target: Node;
  readonly ownsTarget: boolean;
}

const DEFAULT_WORKERS = 64;
const MAX_WORKERS = 2 ** 31 - 1;

export function planBackup(
  registry: JobRegistry,
  args: BackupArguments,
  { source, target, ownsTarget }: BackupEnds,
): BackupPlan {
  const { sync, bitmap } = syncMode(source, args);
  if (source === target) {
    throw new BlockError('invalid-option', 'Source and target cannot be the same');
  }
  const compress = args.compress ?? false;
  if (compress) requireCompressible(target);
  requireOperation(source, 'backup-source');
  requireOperation(target, 'backup-target');
  const workers = workersOf(args);
  const chunk = chunkOf(args);
  if (bitmap !== null && bitmap.mode !== 'never') checkBitmapUsable(bitmap.bitmap, 'change');
  if (source.length !== target.length) {
    throw new BlockError('invalid-option', 'Source and target image have different sizes');
  }
  requireFilterName(registry, args['filter-node-name']);
  const discardsSource = args['discard-source'] ?? false;
  if (discardsSource) requireWritable(source);
  const unit = copyUnit(target, args['x-perf']?.['min-cluster-size']);
  requireChunk(chunk, unit);
  return {
    source,
    target,
    sync,
    bitmap,
    compress,
    discardsSource,
    unit,
    hostCopies: !compress && (args['x-perf']?.['use-copy-range'] ?? false),
    workers,
    maxChunk: chunk === 0 ? Infinity : chunk,
    filterName: args['filter-node-name'] ?? null,
    onSourceError: args['on-source-error'] ?? 'report',
    onTargetError: args['on-target-error'] ?? 'report',
    ownsTarget,
  };
}

function requireCompressible(target: Node): void {
  let node: Node | null = target;
  while (node !== null && node.driver.supports.compressedWrite === 'pass') {
    node = node.filtered ?? node.primary;
  }
  if (node?.driver.supports.compressedWrite !== 'native') {
    // The name of a device would follow; nodes have none.
    throw new BlockError('unsupported', 'Compression is not supported for this drive ');
  }
  if (node.info.encrypted !== true) return;
  throw new BlockError('unsupported', 'Compression and encryption not supported at the same time');
}

/** `incremental` is `bitmap` that is cleared on success. */
function syncMode(source: Node, args: BackupArguments): Pick<BackupPlan, 'sync' | 'bitmap'> {
  const { sync, bitmap: name } = args;
  const usesBits = sync === 'bitmap' || sync === 'incremental';
  const isIncremental = sync === 'incremental';
  const mode = args['bitmap-mode'];
  if (usesBits && name === undefined) {
    throw invalid(`must provide a valid bitmap name for '${sync}' sync mode`);
  }
  if (isIncremental && mode !== undefined && mode !== 'on-success') {
    throw invalid("Bitmap sync mode must be 'on-success' when using sync mode 'incremental'");
  }
  if (name === undefined) {
    if (mode !== undefined) throw invalid('Cannot specify bitmap sync mode without a bitmap');
    return { sync: sync as 'full' | 'top' | 'none', bitmap: null };
  }
  const bitmap = findBitmap(source, name);
  if (bitmap === null) {
    throw new BlockError('not-found', `Bitmap '${name}' could not be found`);
  }
  const known = isIncremental ? 'on-success' : mode;
  if (known === undefined) {
    throw invalid('Bitmap sync mode must be given when providing a bitmap');
  }
  checkBitmapUsable(bitmap, 'use');
  if (sync === 'none') {
    throw invalid("sync mode 'none' does not produce meaningful bitmap outputs");
  }
  if (known === 'never' && !usesBits) {
    throw invalid(
      "Bitmap sync mode 'never' has no meaningful effect when combined with sync mode " +
        `'${sync}'`,
    );
  }
  return { sync: usesBits ? 'bitmap' : sync, bitmap: { bitmap, mode: known } };
}

function invalid(text: string): BlockError {
  return new BlockError('invalid-option', text);
}

/** Its edge would be refused as well, but only when the job is there. */
function requireWritable(source: Node): void {
  if (!source.readOnly) return;
  throw new BlockError('permission', 'Block node is read-only', { node: source.name });
}

function workersOf(args: BackupArguments): number {
  const workers = Number(args['x-perf']?.['max-workers'] ?? DEFAULT_WORKERS);
  if (workers >= 1 && workers <= MAX_WORKERS) return workers;
  throw invalid(`max-workers must be between 1 and ${MAX_WORKERS}`);
}

function chunkOf(args: BackupArguments): number {
  const chunk = Number(args['x-perf']?.['max-chunk'] ?? 0);
  if (chunk >= 0) return chunk;
  throw invalid('max-chunk must be zero (which means no limit) or positive');
}

function requireChunk(chunk: number, unit: number): void {
  if (chunk === 0 || chunk >= unit) return;
  throw invalid(`Required max-chunk (${chunk}) is less than backup cluster size (${unit})`);
}
