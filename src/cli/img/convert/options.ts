// SPDX-License-Identifier: Apache-2.0
// The command line of `img convert`, checked in the order in which the reference checks it.

import { COPY_LIMITS } from '../../../base/index.js';
import type { OptionSpec } from '../../getopt.js';
import { CliError } from '../../program.js';
import type { Program } from '../../program.js';
import { isHelp } from '../create/options.js';
import { sizeArgument } from '../numbers.js';
import { progressMode, type ProgressMode } from '../progress.js';
import { snapshotChoice } from '../snapshot/view.js';
import type { SnapshotChoice } from '../snapshot/view.js';
import {
  FORCE_SHARE,
  FORMAT,
  IMAGE_OPTS,
  OBJECT,
  PROGRESS,
  QUIET,
  readVerbOptions,
  refuseFormatWithOptions,
  requireOptionList,
  SOURCE_CACHE,
} from '../verb.js';

const flag = (name: string, short: string): OptionSpec => ({ name, short });

export const CONVERT_OPTIONS: readonly OptionSpec[] = [
  OBJECT,
  IMAGE_OPTS,
  { name: 'target-is-zero', long: 'target-is-zero' },
  FORCE_SHARE,
  flag('compress', 'c'),
  ...PROGRESS,
  QUIET,
  flag('no-create', 'n'),
  FORMAT,
  { name: 'cache', short: 't', argument: true },
  SOURCE_CACHE,
  { name: 'output-format', short: 'O', argument: true },
  { name: 'backing', short: 'B', argument: true },
  { name: 'backing-format', short: 'F', argument: true },
  { name: 'options', short: 'o', argument: true },
  { name: 'sparse', short: 'S', argument: true },
  { name: 'rate', short: 'r', argument: true },
  { name: 'parallel', short: 'm', argument: true },
  flag('out-of-order', 'W'),
  flag('copy-offload', 'C'),
  { name: 'snapshot', short: 'l', argument: true },
  { name: 'target-image-opts', long: 'target-image-opts' },
  { name: 'bitmaps', long: 'bitmaps' },
  { name: 'skip-broken-bitmaps', long: 'skip-broken-bitmaps' },
  { name: 'salvage', long: 'salvage' },
];

const MAX_SPARSE = 16 * 1024 * 1024;
const SECTOR = 512;

export interface ConvertArguments {
  readonly sources: readonly string[];
  /** Where standard input is kept, one of the sources; it is raw unless -f says otherwise. */
  readonly input?: string;
  /** The first source is read as one of its snapshots. */
  readonly snapshot: SnapshotChoice | null;
  readonly target: string;
  readonly format: string | null;
  readonly imageOptions: boolean;
  /** Null: the target is given by its options. */
  readonly outputFormat: string | null;
  /** The target is named by its options. */
  readonly targetOptions: boolean;
  readonly optionLists: readonly string[];
  readonly backing: string | null;
  readonly backingFormat: string | null;
  readonly create: boolean;
  readonly compress: boolean;
  readonly targetIsZero: boolean;
  readonly share: boolean;
  readonly cache: string;
  readonly sourceCache: string;
  /** Bytes of zeroes that are worth a hole; 0 = everything is written. */
  readonly sparse: number;
  /** Bytes per second; 0 = no limit. */
  readonly rate: number;
  /** Batches in flight; null unless given. */
  readonly parallel: number | null;
  readonly outOfOrder: boolean;
  /** What cannot be read becomes zeroes. */
  readonly salvage: boolean;
  readonly quiet: boolean;
  readonly progress: ProgressMode;
  /** What becomes of the source's persistent bitmaps. */
  readonly bitmaps: 'left' | 'copied' | 'copied, broken ones skipped';
}

/** The format's name when help on its options was asked for. */
export type ConvertCommand = ConvertArguments | { readonly helpFor: string };

export function parseConvert(args: readonly string[], program: Program): ConvertCommand {
  const given = new Map<string, string>();
  const optionLists: string[] = [];
  let sparse = 4096;
  let rate = 0;
  let parallel: number | null = null;
  let snapshot: SnapshotChoice | null = null;
  const operands = readVerbOptions(program, { args, specs: CONVERT_OPTIONS }, (name, value) => {
    if (name === 'options') optionLists.push(requireOptionList(value));
    else if (name === 'sparse') {
      sparse = sparseSize(value);
      given.set(name, value);
    }
    else if (name === 'rate') rate = sizeArgument('rate limit', value);
    else if (name === 'parallel') parallel = parallelism(value);
    else if (name === 'snapshot') snapshot = snapshotChoice(value, program);
    else given.set(name, value);
  });
  refuseContradictions(given, optionLists);
  const outputFormat = given.get('output-format') ?? null;
  if (optionLists.some(isHelp)) return { helpFor: outputFormat ?? 'raw' };
  const target = operands.at(-1);
  if (target === undefined || operands.length < 2) {
    throw new CliError('Must specify image file name');
  }
  const format = given.get('format') ?? null;
  const imageOptions = given.has('image-opts');
  refuseFormatWithOptions({ format, imageOptions });
  return {
    sources: operands.slice(0, -1),
    snapshot,
    target,
    format,
    imageOptions,
    targetOptions: given.has('target-image-opts'),
    outputFormat: outputFormat ?? (given.has('target-image-opts') ? null : 'raw'),
    optionLists,
    backing: given.get('backing') ?? null,
    backingFormat: given.get('backing-format') ?? null,
    create: !given.has('no-create'),
    compress: given.has('compress'),
    targetIsZero: given.has('target-is-zero'),
    share: given.has('share'),
    cache: given.get('cache') ?? 'unsafe',
    sourceCache: given.get('source-cache') ?? 'writeback',
    sparse,
    rate,
    parallel,
    outOfOrder: given.has('out-of-order'),
    salvage: given.has('salvage'),
    quiet: given.has('quiet'),
    progress: progressMode(given),
    bitmaps: bitmapMode(given),
  };
}

/** The first that the reference finds. */
function refuseContradictions(
  given: ReadonlyMap<string, string>,
  optionLists: readonly string[],
): void {
  const offloads = given.has('copy-offload');
  const creates = !given.has('no-create');
  const refusals: readonly (readonly [boolean, string])[] = [
    [
      given.has('skip-broken-bitmaps') && !given.has('bitmaps'),
      'Use of --skip-broken-bitmaps requires --bitmaps',
    ],
    [offloads && given.has('compress'), 'Cannot enable copy offloading when -c is used'],
    [offloads && given.has('sparse'), 'Cannot enable copy offloading when -S is used'],
    [offloads && given.has('salvage'), 'Cannot use copy offloading in salvaging mode'],
    [
      creates && given.has('target-image-opts'),
      '--target-image-opts requires use of -n flag',
    ],
    [
      !creates && optionLists.length > 0,
      '-o has no effect when skipping image creation',
    ],
    [creates && given.has('target-is-zero'), '--target-is-zero requires use of -n flag'],
  ];
  const found = refusals.find(([applies]) => applies);
  if (found !== undefined) throw new CliError(found[1]);
}

function bitmapMode(given: ReadonlyMap<string, string>): ConvertArguments['bitmaps'] {
  if (!given.has('bitmaps')) return 'left';
  return given.has('skip-broken-bitmaps') ? 'copied, broken ones skipped' : 'copied';
}

function sparseSize(text: string): number {
  const bytes = sizeArgument('buffer size for sparse output', text);
  if (bytes % SECTOR === 0 && bytes <= MAX_SPARSE) return bytes;
  throw new CliError(
    'Invalid buffer size for sparse output specified. Valid sizes are multiples of ' +
      `${SECTOR} up to ${MAX_SPARSE}. Select 0 to disable sparse detection ` +
      '(fully allocates output).',
  );
}

function parallelism(text: string): number {
  const count = /^\d+$/.test(text) ? Number(text) : 0;
  const most = COPY_LIMITS.batchesPerJob;
  if (count >= 1 && count <= most) return count;
  throw new CliError(
    'Invalid number of coroutines. Allowed number of coroutines is between 1 and ' + String(most),
  );
}
