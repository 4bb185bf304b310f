// SPDX-License-Identifier: Apache-2.0
// Every kind of job on one scene (base ← mid ← top, other, target, target2, blank), as the
// command that starts it: what a campaign of interruptions plays.

export type Arguments = Readonly<Record<string, unknown>>;
export type Command = readonly [execute: string, args: Arguments];

export interface JobCase {
  /** The command; `extra` goes into the arguments of each of its jobs. */
  start(extra: Arguments): Command;
  /** Names of the options that take an error policy. */
  readonly policies: readonly string[];
  /** False for jobs that take no `auto-finalize` and are dismissed by hand. */
  readonly blockJob: boolean;
  /** Ends by a cancel, never by itself. */
  readonly endless?: true;
  /** Bitmaps of the backup's sources, and what must be told by them. */
  readonly backups?: readonly BackupCase[];
}

export interface BackupCase {
  readonly job: string;
  readonly device: string;
  /** Image file of the target. */
  readonly target: string;
  readonly bitmap: string | null;
  readonly mode: 'on-success' | 'always' | 'never' | null;
  /** The target is new: it was no copy before. */
  readonly fresh: boolean;
  /** The target is all of the source when the job has ended well. */
  readonly whole: boolean;
}

const ON_ERROR = ['on-error'];
const BOTH_SIDES = ['on-source-error', 'on-target-error'];
const id = { 'job-id': 'j' } as const;

function plain(execute: string, args: Arguments, policies: readonly string[]): JobCase {
  return {
    start: (extra) => [execute, { ...id, ...args, ...extra }],
    policies,
    blockJob: true,
  };
}

const stream = (args: Arguments): JobCase => plain('block-stream', args, ON_ERROR);
const commit = (args: Arguments): JobCase => plain('block-commit', args, ON_ERROR);
const copy = { device: 'top', target: 'target' } as const;
const mirror = (args: Arguments): JobCase =>
  plain('blockdev-mirror', { ...copy, ...args }, BOTH_SIDES);

interface BackupArguments {
  readonly sync: string;
  readonly mode?: BackupCase['mode'];
  readonly extra?: Arguments;
}

function bitmapOf({ sync, mode = null }: BackupArguments): Arguments {
  if (sync === 'incremental') return { bitmap: 'used' };
  return mode === null ? {} : { bitmap: 'used', 'bitmap-mode': mode };
}

function facts(args: BackupArguments): BackupCase {
  const mode = args.sync === 'incremental' ? 'on-success' : (args.mode ?? null);
  return {
    job: 'j',
    device: 'top',
    target: 'target.qcow2',
    bitmap: mode === null ? null : 'used',
    mode,
    fresh: false,
    whole: args.sync !== 'none',
  };
}

function backup(args: BackupArguments): JobCase {
  const { sync, extra = {} } = args;
  return {
    ...plain('blockdev-backup', { ...copy, sync, ...bitmapOf(args), ...extra }, BOTH_SIDES),
    backups: [facts(args)],
    ...(sync === 'none' ? { endless: true } : {}),
  };
}

function driveBackup(args: BackupArguments): JobCase {
  const { sync, extra = {} } = args;
  const made = { device: 'top', target: 'made.qcow2', format: 'qcow2' };
  return {
    ...plain('drive-backup', { ...made, sync, ...bitmapOf(args), ...extra }, BOTH_SIDES),
    backups: [{ ...facts(args), target: 'made.qcow2', fresh: true }],
    ...(sync === 'none' ? { endless: true } : {}),
  };
}

/** Two backups in one transaction. */
function pair(completion: 'grouped' | 'individual'): JobCase {
  const first = { ...id, ...copy, sync: 'incremental', bitmap: 'used' };
  const second = {
    'job-id': 'k', device: 'other', target: 'target2', sync: 'bitmap', bitmap: 'used',
    'bitmap-mode': 'always',
  };
  return {
    start: (extra) => [
      'transaction',
      {
        actions: [first, second].map((data) => {
          return { type: 'blockdev-backup', data: { ...data, ...extra } };
        }),
        properties: { 'completion-mode': completion },
      },
    ],
    policies: BOTH_SIDES,
    blockJob: true,
    backups: [
      facts({ sync: 'incremental' }),
      { ...facts({ sync: 'bitmap', mode: 'always' }), job: 'k', device: 'other',
        target: 'target2.qcow2' },
    ],
  };
}

const newImage = { driver: 'qcow2', file: 'blank', size: 2 ** 20 };

export const JOB_CASES: Readonly<Record<string, JobCase>> = {
  stream: stream({ device: 'top', 'base-node': 'base' }),
  'stream of the whole chain': stream({ device: 'top' }),
  'stream down to a bottom': stream({ device: 'top', bottom: 'mid' }),
  'stream of the middle': stream({ device: 'mid' }),
  commit: commit({ device: 'top', 'top-node': 'mid' }),
  'active commit': commit({ device: 'top' }),
  'active commit by one': commit({ device: 'top', 'base-node': 'mid' }),
  mirror: mirror({ sync: 'full' }),
  'mirror of the top': mirror({ sync: 'top' }),
  'mirror by sectors': mirror({ sync: 'full', granularity: 512, 'buf-size': 65_536 }),
  'mirror of what comes': { ...mirror({ sync: 'none' }), endless: true },
  'blocking mirror': mirror({ sync: 'full', 'copy-mode': 'write-blocking' }),
  'blocking mirror by sectors': mirror({
    sync: 'top', 'copy-mode': 'write-blocking', granularity: 512,
  }),
  'drive-mirror': plain(
    'drive-mirror',
    { device: 'top', target: 'made.qcow2', format: 'qcow2', sync: 'full' },
    BOTH_SIDES,
  ),
  backup: backup({ sync: 'full' }),
  'backup, on success': backup({ sync: 'full', mode: 'on-success' }),
  'backup, always': backup({ sync: 'full', mode: 'always' }),
  'backup of the top, on success': backup({ sync: 'top', mode: 'on-success' }),
  'backup of the top, always': backup({ sync: 'top', mode: 'always' }),
  'incremental backup': backup({ sync: 'incremental' }),
  'backup by bitmap, on success': backup({ sync: 'bitmap', mode: 'on-success' }),
  'backup by bitmap, always': backup({ sync: 'bitmap', mode: 'always' }),
  'backup by bitmap, never': backup({ sync: 'bitmap', mode: 'never' }),
  'backup of what goes': backup({ sync: 'none' }),
  'compressed backup': backup({ sync: 'full', mode: 'always', extra: { compress: true } }),
  'backup by one worker': backup({
    sync: 'full', mode: 'always', extra: { 'x-perf': { 'max-workers': 1, 'max-chunk': 65_536 } },
  }),
  'backup in larger units': backup({
    sync: 'full', mode: 'always', extra: { 'x-perf': { 'min-cluster-size': 131_072 } },
  }),
  'drive-backup': driveBackup({ sync: 'full', mode: 'always' }),
  'drive-backup of the top': driveBackup({ sync: 'top', mode: 'always' }),
  'drive-backup of what goes': driveBackup({ sync: 'none' }),
  create: {
    start: () => ['blockdev-create', { ...id, options: newImage }],
    policies: [],
    blockJob: false,
  },
  'grouped backups': pair('grouped'),
  'individual backups': pair('individual'),
};
