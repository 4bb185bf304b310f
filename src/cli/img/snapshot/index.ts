// SPDX-License-Identifier: Apache-2.0
// `img snapshot`: lists (-l), applies (-a), creates (-c) or deletes (-d) snapshots that lie in an
// image. Applied is what has the ID or else the name, deleted what has the name.

import { constants } from 'node:os';

import { BlockError, errnoText, Permission, systemClock } from '../../../base/index.js';
import { bitmapsOf, internalSnapshotsOf } from '../../../block/index.js';
import type { InternalSnapshots, Node } from '../../../block/index.js';
import { jsonPieces } from '../../../wire/index.js';
import type { OptionSpec } from '../../getopt.js';
import { CliError, outPieces } from '../../program.js';
import type { Program } from '../../program.js';
import { snapshotInfo, snapshotLines } from '../info/text.js';
import type { SnapshotInfo } from '../info/text.js';
import { attachUser, openImage, withSession } from '../session.js';
import {
  FORCE_SHARE,
  IMAGE_OPTS,
  OBJECT,
  oneImage,
  OUTPUT,
  outputFormat,
  QUIET,
  readVerbOptions,
  usageError,
} from '../verb.js';
import type { OutputFormat, Verb } from '../verb.js';

const OPTIONS: readonly OptionSpec[] = [
  OBJECT,
  IMAGE_OPTS,
  { name: 'list', short: 'l' },
  { name: 'apply', short: 'a', argument: true },
  { name: 'create', short: 'c', argument: true },
  { name: 'delete', short: 'd', argument: true },
  QUIET,
  FORCE_SHARE,
  OUTPUT,
];

const ACTIONS = new Set(['list', 'apply', 'create', 'delete']);
/** Snapshots that are listed at once. */
const BATCH = 512;
/** Bytes of a name; more are cut off. */
const NAME_BYTES = 255;

interface Action {
  readonly kind: string;
  /** Name or ID. */
  readonly snapshot: string;
}

export const snapshot: Verb = {
  options: OPTIONS,
  async run(args, program) {
    let action: Action | null = null;
    let shape: OutputFormat = 'human';
    const flags = new Set<string>();
    const operands = readVerbOptions(program, { args, specs: OPTIONS }, (name, value) => {
      if (ACTIONS.has(name)) {
        if (action !== null) throw usageError(program, "Cannot mix '-l', '-a', '-c', '-d'");
        action = { kind: name, snapshot: value };
      } else if (name === 'output') shape = outputFormat(value);
      else flags.add(name);
    });
    const image = oneImage(program, operands, {
      format: null,
      imageOptions: flags.has('image-opts'),
    });
    const chosen = action as Action | null;
    return withSession(program, async (session) => {
      const readOnly = chosen?.kind === 'list';
      const policy = { forceShare: flags.has('share'), unmap: true };
      const node = await openImage(session, { image, readOnly, policy });
      const taken = Permission.consistentRead | (readOnly ? 0 : Permission.write);
      const user = await attachUser(session, { node, name: image.text, taken });
      if (chosen !== null) await perform({ node, program, shape }, chosen);
      await user.detach();
      return 0;
    });
  },
};

interface Subject {
  readonly node: Node;
  readonly program: Program;
  readonly shape: OutputFormat;
}

async function perform(subject: Subject, { kind, snapshot: wanted }: Action): Promise<void> {
  const { node } = subject;
  const snapshots = internalSnapshotsOf(node);
  if (kind === 'list') await list(subject);
  else if (kind === 'create') await create(snapshots, wanted);
  else if (kind === 'apply') await apply(node, snapshots, wanted);
  else await remove(snapshots, wanted);
}

async function list({ node, program, shape }: Subject): Promise<void> {
  const snapshots = internalSnapshotsOf(node);
  const count = snapshots?.count ?? 0;
  if (shape === 'json') await outPieces(program, asJson(infosOf(snapshots, count)));
  else if (count > 0) await outPieces(program, asText(infosOf(snapshots, count)));
}

/** A little at a time: a hostile image lists 65,536 of them. */
function* infosOf(snapshots: InternalSnapshots | null, count: number): Generator<SnapshotInfo> {
  for (let at = 0; at < count; at += BATCH) {
    yield* (snapshots?.list(at, at + BATCH) ?? []).map(snapshotInfo);
  }
}

function* asJson(infos: Iterable<SnapshotInfo>): Generator<string> {
  yield* jsonPieces(infos, { pretty: true });
  yield '\n';
}

function* asText(infos: Iterable<SnapshotInfo>): Generator<string> {
  for (const line of snapshotLines(infos)) yield `${line}\n`;
}

async function create(snapshots: InternalSnapshots | null, name: string): Promise<void> {
  const failure = `Could not create snapshot '${name}'`;
  const now = systemClock.wallMicroseconds();
  try {
    if (snapshots === null) throw new BlockError('unsupported', 'no snapshots');
    await snapshots.create({
      name: cutName(name),
      dateSeconds: Math.floor(now / 1e6),
      dateNanoseconds: (now % 1e6) * 1000,
      vmClockSeconds: 0,
      vmClockNanoseconds: 0,
      icount: 0,
    });
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
    const number = constants.errno[error.errno as keyof typeof constants.errno];
    const text = `${failure}: -${number} (${errnoText(error.errno)})`;
    throw new CliError(text, 1, error);
  }
}

/** As many whole characters as the reference has bytes for. */
function cutName(name: string): string {
  const bytes = Buffer.from(name);
  if (bytes.length <= NAME_BYTES) return name;
  let end = NAME_BYTES;
  while (((bytes[end] ?? 0) & 0xc0) === 0x80) end -= 1;
  return bytes.subarray(0, end).toString();
}

async function apply(
  node: Node,
  snapshots: InternalSnapshots | null,
  wanted: string,
): Promise<void> {
  const failure = `Could not apply snapshot '${wanted}'`;
  if (snapshots === null) {
    throw new CliError(`${failure}: Block driver does not support snapshots`);
  }
  if (bitmapsOf(node).length > 0) {
    throw new CliError(`${failure}: Device has active dirty bitmaps`);
  }
  const all = snapshots.list();
  const found = all.find(({ id }) => id === wanted) ?? all.find(({ name }) => name === wanted);
  if (found === undefined) {
    // With a data file there are none to look for.
    const reason = errnoText(node.children.has('data-file') ? 'ENOTSUP' : 'ENOENT');
    throw new CliError(`${failure}: Failed to load snapshot: ${reason}`);
  }
  await told(failure, { fails: 'Failed to load snapshot' }, () => snapshots.apply(found));
}

async function remove(snapshots: InternalSnapshots | null, wanted: string): Promise<void> {
  const failure = `Could not delete snapshot '${wanted}'`;
  const found = snapshots?.list().find(({ name }) => name === wanted);
  if (snapshots === null || found === undefined) {
    throw new CliError(`${failure}: snapshot not found`);
  }
  const steps = {
    fails: 'Failed to remove snapshot',
    corrupt: 'Failed to free the cluster and L1 table',
  };
  await told(failure, steps, () => snapshots.remove(found));
}

async function told(
  failure: string,
  { fails, corrupt = fails }: { readonly fails: string; readonly corrupt?: string },
  work: () => Promise<void>,
): Promise<void> {
  try {
    await work();
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
    const step = error.kind === 'corrupt-image' ? corrupt : fails;
    throw new CliError(`${failure}: ${step}: ${errnoText(error.errno)}`, 1, error);
  }
}
