// SPDX-License-Identifier: Apache-2.0
// `img rebase`: gives an image another backing file (-b) or none (-b ''). In safe mode it reads the
// same afterwards: what the old and the new backing file do not have in common becomes its own.
// With -u only the header changes.
//
// Order: copies → flush → the link, in one write of the header's sector → flush. Before the link
// changes, the copies only repeat what the old backing file shows; so a power cut at any time
// leaves the view as it was. SIGINT ends the copying and keeps the old link.

import { BlockError, Permission } from '../../base/index.js';
import { RequestFlag, resolveBackingName } from '../../block/index.js';
import type { Backend, BackingLink, Node, OpenPolicy } from '../../block/index.js';
import { backingOf, layerStatus, skipFilters, viewStatus } from '../../block/copy/index.js';
import { isZero } from '../../codec/index.js';
import type { OptionSpec } from '../getopt.js';
import { CliError } from '../program.js';
import type { Program } from '../program.js';
import { BACKING_FORMATS } from './create/image.js';
import { Progress, progressMode } from './progress.js';
import type { ProgressMode } from './progress.js';
import { attachUser, cachePolicy, openImage, sourceCache, withSession } from './session.js';
import type { ImageName, Session } from './session.js';
import {
  FORCE_SHARE,
  FORMAT,
  IMAGE_OPTS,
  OBJECT,
  oneImage,
  PROGRESS,
  QUIET,
  readVerbOptions,
  SOURCE_CACHE,
  usageError,
} from './verb.js';
import type { Verb } from './verb.js';

const OPTIONS: readonly OptionSpec[] = [
  OBJECT,
  IMAGE_OPTS,
  FORMAT,
  { name: 'backing', short: 'b', argument: true },
  { name: 'backing-format', short: 'F', argument: true },
  { name: 'unsafe', short: 'u' },
  { name: 'cache', short: 't', argument: true },
  SOURCE_CACHE,
  FORCE_SHARE,
  ...PROGRESS,
  QUIET,
];

const INTERRUPTED = 130;
const STEP_BYTES = 2 * 1024 * 1024;
/** Unit of copying into an overlay without clusters. */
const PLAIN_UNIT = 65_536;

interface RebaseArguments {
  readonly image: ImageName;
  /** Empty: none; null: not given. */
  readonly backing: string | null;
  readonly format: string | null;
  readonly unsafe: boolean;
  readonly policy: OpenPolicy;
  readonly source: OpenPolicy;
  readonly progress: ProgressMode;
}

export const rebase: Verb = {
  options: OPTIONS,
  async run(args, program) {
    const command = parse(args, program);
    return withSession(program, async (session) => {
      const { image, unsafe, policy } = command;
      const request = { image, readOnly: false, policy: { ...policy, noBacking: unsafe } };
      const node = await openImage(session, request);
      const { consistentRead, write } = Permission;
      const user = await attachUser(session, {
        node,
        name: image.text,
        taken: consistentRead | write,
      });
      if (command.format !== null && !BACKING_FORMATS.has(command.format)) {
        throw new CliError(`Invalid format name: '${command.format}'`);
      }
      const progress = new Progress(program, command.progress, node.length);
      try {
        if (!unsafe) await copyDifferences(session, { command, user, progress });
        await changeLink(user, command);
        progress.complete();
      } finally {
        progress.end();
      }
      await user.detach();
      return 0;
    });
  },
};

function parse(args: readonly string[], program: Program): RebaseArguments {
  const given = new Map<string, string>();
  const operands = readVerbOptions(program, { args, specs: OPTIONS }, (name, value) => {
    given.set(name, value);
  });
  const progress = progressMode(given);
  const imageOptions = given.has('image-opts');
  const format = given.get('format') ?? null;
  const image = oneImage(program, operands, { format, imageOptions });
  const backing = given.get('backing') ?? null;
  const unsafe = given.has('unsafe');
  if (backing === null && !unsafe) {
    throw usageError(program, 'Must specify backing file (-b) or use unsafe mode (-u)');
  }
  const policy = cachePolicy(given.get('cache') ?? 'writeback');
  if (policy === null) throw new CliError(`Invalid cache option: ${given.get('cache')}`);
  const source = sourceCache(given.get('source-cache') ?? 'writeback');
  return {
    image,
    backing,
    format: given.get('backing-format') ?? null,
    unsafe,
    policy,
    source: { ...source, forceShare: given.has('share') },
    progress,
  };
}

interface RebaseWork {
  readonly command: RebaseArguments;
  readonly user: Backend;
  readonly progress: Progress;
}

async function copyDifferences(session: Session, work: RebaseWork): Promise<void> {
  const { command, user } = work;
  const { node } = user;
  const { backing } = command;
  const base =
    backing === null || backing === '' ? null : await openBase(session, node, command);
  try {
    // Refused before anything is copied; the reference copies first.
    requireLink(node, command);
    let interrupted = false;
    const onInterrupt = (): void => {
      interrupted = true;
    };
    process.once('SIGINT', onInterrupt);
    try {
      await new DifferenceCopy(work, base).run(() => interrupted);
    } finally {
      process.off('SIGINT', onInterrupt);
    }
    if (interrupted) {
      throw new CliError('interrupted, the backing file is the old one', INTERRUPTED);
    }
    await user.flush();
  } finally {
    await base?.user.detach();
  }
}

interface Base {
  readonly user: Backend;
  /** A layer of the image as it is: what lies above it is all that can differ. */
  readonly inChain: boolean;
}

function resolvedName(overlay: string, name: string): string {
  try {
    return resolveBackingName(overlay, name);
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
    throw new CliError(`Could not resolve backing filename: ${error.message}`, 1, error);
  }
}

async function openBase(session: Session, overlay: Node, command: RebaseArguments): Promise<Base> {
  const name = command.backing ?? '';
  const path = resolvedName(skipFilters(overlay).filename, name);
  try {
    const below = await findBelow(session, overlay, path);
    const node =
      below ?? (await session.graph.openImage(path, command.format, true, command.source));
    const permissions = { taken: Permission.consistentRead, shared: Permission.all };
    const user = await session.graph.attach(node, 'img', permissions);
    return { user, inChain: below !== null };
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
    const reason = error.message.replace(`Could not open '${path}': `, '');
    throw new CliError(`Could not open new backing file '${name}': ${reason}`, 1, error);
  }
}

/** The layer of the chain that is in that file. */
async function findBelow(session: Session, overlay: Node, path: string): Promise<Node | null> {
  const wanted = (await session.host.stat(path).catch(() => null))?.identity;
  if (wanted === undefined) return null;
  for (let node = backingOf(overlay); node !== null; node = backingOf(node)) {
    const stat = await session.host.stat(skipFilters(node).filename).catch(() => null);
    const found = stat?.identity;
    if (found?.device === wanted.device && found.inode === wanted.inode) return node;
  }
  return null;
}

/** Copies what the image shows of its old backing file where the new one shows something else. */
class DifferenceCopy {
  readonly #work: RebaseWork;
  readonly #base: Base | null;
  readonly #unit: number;
  readonly #old = new Uint8Array(STEP_BYTES);
  readonly #new = new Uint8Array(STEP_BYTES);

  constructor(work: RebaseWork, base: Base | null) {
    this.#work = work;
    this.#base = base;
    this.#unit = skipFilters(work.user.node).info.clusterSize ?? PLAIN_UNIT;
  }

  async run(isCancelled: () => boolean): Promise<void> {
    const { user, progress } = this.#work;
    const { length } = user.node;
    for (let offset = 0; offset < length && !isCancelled(); ) {
      const bytes = await this.#step(offset, length - offset);
      offset += bytes;
      progress.update(offset);
    }
  }

  /** Deals with what begins at `offset`; gives how far that reaches. */
  async #step(offset: number, left: number): Promise<number> {
    const top = this.#work.user.node;
    const base = this.#base;
    const chain = { top, base: base?.inChain === true ? base.user.node : null };
    const status = await layerStatus(chain, offset, left);
    const isSame = status.where === 'below' && base?.inChain === true;
    if (status.where === 'top' || isSame) return status.length;
    const before = await viewStatus(top, offset, status.length);
    const after = await this.#baseStatus(offset, before.length);
    if (before.zero && after.zero) return after.length;
    // Whole clusters, which are 2 MiB at most.
    const last = offset - (offset % this.#unit) + STEP_BYTES;
    const end = Math.min(offset + status.length, last);
    await this.#compare(offset, end - offset);
    return end - offset;
  }

  async #baseStatus(offset: number, length: number): Promise<{ zero: boolean; length: number }> {
    const node = this.#base?.user.node;
    if (node === undefined || offset >= node.length) return { zero: true, length };
    return viewStatus(node, offset, Math.min(length, node.length - offset));
  }

  async #compare(offset: number, length: number): Promise<void> {
    const { user } = this.#work;
    const before = this.#old.subarray(0, length);
    const after = this.#new.subarray(0, length);
    await user.read(offset, before);
    await this.#readBase(offset, after);
    for (let from = 0; from < length; ) {
      const first = this.#next(offset, from, length);
      const differs = !sameBytes([before, after], from, first);
      let to = first;
      // Runs of one kind go together.
      while (differs && to < length) {
        const end = this.#next(offset, to, length);
        if (sameBytes([before, after], to, end)) break;
        if (isZero(before.subarray(to, end)) !== isZero(before.subarray(from, first))) break;
        to = end;
      }
      if (differs) await this.#copy(offset + from, before.subarray(from, to));
      from = to;
    }
  }

  /** End of the cluster that begins at or holds `from`, relative to `offset`. */
  #next(offset: number, from: number, length: number): number {
    const place = offset + from;
    return Math.min(length, place - (place % this.#unit) + this.#unit - offset);
  }

  async #copy(offset: number, bytes: Uint8Array): Promise<void> {
    const { user } = this.#work;
    if (isZero(bytes)) await user.writeZeroes(offset, bytes.length, RequestFlag.none);
    else await user.write(offset, bytes);
  }

  async #readBase(offset: number, buffer: Uint8Array): Promise<void> {
    const user = this.#base?.user;
    const there = Math.max(0, Math.min(buffer.length, (user?.node.length ?? 0) - offset));
    if (user !== undefined && there > 0) await user.read(offset, buffer.subarray(0, there));
    buffer.fill(0, there);
  }
}

function sameBytes(
  [a, b]: readonly [Uint8Array, Uint8Array],
  from: number,
  to: number,
): boolean {
  return Buffer.compare(a.subarray(from, to), b.subarray(from, to)) === 0;
}

function requireLink(node: Node, command: RebaseArguments): void {
  const { backing, format } = command;
  if (skipFilters(node).driver.supports.changeBacking !== 'native') {
    throw changeError(backing, 'Operation not supported');
  }
  if (backing !== null && backing !== '' && format === null) {
    throw changeError(backing, 'backing format must be specified');
  }
}

function changeError(backing: string | null, reason: string): CliError {
  return new CliError(`Could not change the backing file to '${backing ?? '(null)'}': ${reason}`);
}

async function changeLink(user: Backend, command: RebaseArguments): Promise<void> {
  const node = skipFilters(user.node);
  const { backing, format } = command;
  requireLink(node, command);
  const link: BackingLink | null =
    backing === null || backing === '' ? null : { file: backing, format };
  try {
    await node.changeBacking(link);
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
    const full = error.kind === 'no-space' ? 'No space left in the file header' : error.message;
    throw changeError(backing, full);
  }
}
