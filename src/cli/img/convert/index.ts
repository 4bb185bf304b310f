// SPDX-License-Identifier: Apache-2.0
// `img convert`: copies one image, or several one after another, into a new or existing one.
//
// Order: options, sources, target options, create, open, copy, flush, close; status 0 only when
// all of it went well. With the default cache mode `unsafe` the flush orders the metadata but asks
// nothing of the disk. SIGINT ends the copy between batches, closes the images and is a failure.

import { BlockError, Permission } from '../../../base/index.js';
import type { CopyFailure } from '../../../block/copy/index.js';
import { creationPath } from '../../../block/index.js';
import type { Backend, Node, OpenPolicy } from '../../../block/index.js';
import type { KeyvalTree } from '../../../schema/index.js';
import { CliError } from '../../program.js';
import type { Program } from '../../program.js';
import { copyBitmaps, requireSourceBitmaps, requireTargetBitmaps } from './bitmaps.js';
import { copyAll } from './copy.js';
import { CONVERT_OPTIONS, parseConvert } from './options.js';
import type { ConvertArguments } from './options.js';
import { STANDARD_INPUT, withStandardInput } from './standard-input.js';
import { createImage, creationError } from '../create/image.js';
import { createFormat, OptionMistake, optionsHelp, OptionValues } from '../create/options.js';
import { Progress } from '../progress.js';
import { showSnapshot } from '../snapshot/view.js';
import { cachePolicy, openImage, sourceCache, withSession } from '../session.js';
import type { ImageName, Session } from '../session.js';
import { refuseFormatWithOptions } from '../verb.js';
import type { Verb } from '../verb.js';

const INTERRUPTED = 130;

export const convert: Verb = {
  options: CONVERT_OPTIONS,
  async run(args, program) {
    const command = parseConvert(args, program);
    if ('helpFor' in command) {
      program.out(optionsHelp(requireFormat(command.helpFor)));
      return 0;
    }
    const run = (work: ConvertArguments): Promise<number> =>
      withSession(program, (session) => runConvert(session, work, program));
    if (command.imageOptions || !command.sources.includes(STANDARD_INPUT)) return run(command);
    return withStandardInput(process.stdin, (path) => run(readingFrom(path, command)));
  },
};

function readingFrom(path: string, command: ConvertArguments): ConvertArguments {
  const sources = command.sources.map((name) => (name === STANDARD_INPUT ? path : name));
  return { ...command, sources, input: path };
}

function requireFormat(name: string) {
  const format = createFormat(name);
  if (format !== null) return format;
  if (name !== 'null-co') throw new CliError(`Unknown file format '${name}'`);
  throw new CliError(`Format driver '${name}' does not support image creation`);
}

async function runConvert(
  session: Session,
  command: ConvertArguments,
  program: Program,
): Promise<number> {
  const users: Backend[] = [];
  try {
    return await convertAttached({ session, command, program, users });
  } catch (error) {
    // Also a failed conversion lets go of its images in order; its own failure is the one named.
    for (const user of users) await user.detach().catch(() => undefined);
    throw error;
  }
}

/** `users` gets every backend attached, the target last. */
async function convertAttached(work: {
  readonly session: Session;
  readonly command: ConvertArguments;
  readonly program: Program;
  readonly users: Backend[];
}): Promise<number> {
  const { session, command, program, users } = work;
  const policy = { ...sourceCache(command.sourceCache), forceShare: command.share };
  for (const text of command.sources) {
    const { imageOptions, input } = command;
    const format = command.format ?? (text === input ? 'raw' : null);
    const image = { text, format, imageOptions };
    const node = await openImage(session, { image, readOnly: true, policy });
    users.push(await attach(session, node, false));
  }
  await showSource(users, command);
  const sources = [...users];
  const total = sources.reduce((sum, { node }) => sum + node.length, 0);
  requireSourceBitmaps(
    command.bitmaps,
    sources.map(({ node }) => node),
  );
  const values = command.create ? targetValues(command) : null;
  refuseCombinations(command, values);
  const cache = cachePolicy(command.cache);
  if (cache === null) throw new CliError(`Invalid cache option: ${command.cache}`);
  const target = await openTarget(session, { command, values, total, cache });
  users.push(target);
  if (target.node.length < total) {
    throw new CliError('output file is smaller than input file');
  }
  requireTargetBitmaps(command.bitmaps, target.node);
  await copyWithProgress({ session, command, values, program, sources, target, total });
  await target.flush();
  const [source] = sources;
  if (source !== undefined) {
    copyBitmaps(program, command.bitmaps, { source: source.node, target: target.node });
  }
  for (const user of users.splice(0).reverse()) await user.detach();
  return 0;
}

async function showSource(users: readonly Backend[], command: ConvertArguments): Promise<void> {
  const [first] = users;
  if (command.snapshot === null || first === undefined) return;
  const { word } = command.snapshot;
  if (word !== undefined && users.length > 1) {
    throw new CliError('No support for concatenating multiple snapshot');
  }
  await showSnapshot(first.node, command.snapshot);
}

function targetValues(command: ConvertArguments): OptionValues {
  const values = new OptionValues(requireFormat(command.outputFormat ?? 'raw'));
  const { name } = values.format;
  try {
    for (const list of command.optionLists) values.parse(list);
  } catch (error) {
    if (error instanceof OptionMistake) throw new CliError(error.message, 1, error.lines);
    throw error;
  }
  if (command.backing !== null || command.backingFormat !== null) {
    if (!values.format.backing) {
      const what = command.backing === null ? 'Backing file format' : 'Backing file';
      throw new CliError(`${what} not supported for file format '${name}'`);
    }
    if (command.backing !== null) values.set('backing_file', command.backing);
    if (command.backingFormat !== null) values.set('backing_fmt', command.backingFormat);
  }
  return values;
}

function refuseCombinations(command: ConvertArguments, values: OptionValues | null): void {
  const hasBacking = (values?.get('backing_file') ?? command.backing) !== null;
  if (command.targetIsZero && hasBacking) {
    throw new CliError(
      'Cannot use --target-is-zero when the destination image has a backing file',
    );
  }
  if (command.sources.length > 1 && hasBacking) {
    throw new CliError(
      'Having a backing file for the target makes no sense ' +
        'when concatenating multiple input images',
    );
  }
  if (hasBacking && values !== null && values.get('backing_fmt') === null) {
    throw new CliError('Use of backing file requires explicit backing format');
  }
  if (!command.compress) return;
  if (command.outputFormat !== null && command.outputFormat !== 'qcow2') {
    throw new CliError('Compression not supported for this file format');
  }
  if (values?.isEncrypted === true) throw compressedAndEncrypted();
  const preallocation = values?.get('preallocation') ?? 'off';
  if (preallocation !== 'off') {
    throw new CliError('Compression and preallocation not supported at the same time');
  }
}

function compressedAndEncrypted(): CliError {
  return new CliError('Compression and encryption not supported at the same time');
}

interface TargetRequest {
  readonly command: ConvertArguments;
  readonly values: OptionValues | null;
  readonly total: number;
  readonly cache: OpenPolicy;
}

async function openTarget(session: Session, request: TargetRequest): Promise<Backend> {
  const { command, values, total, cache } = request;
  if (values !== null) {
    values.set('size', String(total));
    creationPath(command.target);
    try {
      await createImage(session, { path: command.target, values, size: total });
    } catch (error) {
      const prefix = `${command.target}: error while converting ${command.outputFormat}`;
      throw creationError(prefix, error);
    }
  }
  const image = {
    text: command.target,
    format: command.outputFormat,
    imageOptions: command.targetOptions,
  };
  refuseFormatWithOptions(image);
  const policy = { ...cache, unmap: true };
  const keys = values?.secrets() ?? {};
  const hasKey = Object.keys(keys).length > 0;
  const node = await (hasKey
    ? openEncrypted(session, { ...image, keys }, policy)
    : openImage(session, { image, readOnly: false, policy }));
  if (command.compress && node.driver.name !== 'qcow2') {
    throw new CliError('Compression not supported for this file format');
  }
  if (command.compress && node.info.encrypted === true) throw compressedAndEncrypted();
  try {
    return await attach(session, node, true);
  } catch (error) {
    if (!(error instanceof BlockError) || error.kind !== 'locked') throw error;
    const text = `Could not open '${command.target}': ${error.message}`;
    throw new CliError(text, 1, error);
  }
}

/** What was made with a secret is opened with the same. */
async function openEncrypted(
  session: Session,
  image: ImageName & { readonly keys: KeyvalTree },
  policy: OpenPolicy,
): Promise<Node> {
  const { openByOptions, withName } = await import('../options/open.js');
  const { text, format, keys } = image;
  try {
    const tree = await withName(session, text, { driver: format ?? 'raw', ...keys });
    return await openByOptions(session, { tree, readOnly: false, policy });
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
    throw new CliError(`Could not open '${text}': ${error.message}`, 1, error);
  }
}

async function attach(session: Session, node: Node, writes: boolean): Promise<Backend> {
  const { consistentRead, write, resize, all } = Permission;
  const taken = writes ? consistentRead | write | resize : consistentRead;
  return session.graph.attach(node, 'convert', { taken, shared: all });
}

interface ConvertRun {
  readonly session: Session;
  readonly command: ConvertArguments;
  /** Options of the new target; null: it was there before. */
  readonly values: OptionValues | null;
  readonly program: Program;
  readonly sources: readonly Backend[];
  readonly target: Backend;
  readonly total: number;
}

async function copyWithProgress(run: ConvertRun): Promise<void> {
  const { command, target } = run;
  let interrupted = false;
  const onInterrupt = (): void => {
    interrupted = true;
  };
  // Before the first output, upon which someone may interrupt already.
  process.once('SIGINT', onInterrupt);
  const progress = new Progress(run.program, command.progress, run.total);
  try {
    const isFresh = command.create && target.node.backing === null && isZeroWhenNew(run);
    const failure = await copyAll(run.session, {
      sources: run.sources,
      target,
      length: run.total,
      compress: command.compress,
      sparse: command.sparse,
      targetIsZero: command.targetIsZero || isFresh,
      overlay: target.node.backing !== null && (command.create || command.backing !== null),
      fresh: command.create,
      speed: command.rate,
      inFlight: command.parallel,
      ordered: !command.outOfOrder,
      salvage: command.salvage ? (text) => warn(run, text) : null,
      onProgress: (done) => progress.update(done),
      cancelled: () => interrupted,
    });
    if (interrupted) throw new CliError('interrupted, the target is incomplete', INTERRUPTED);
    if (failure !== null) throw copyError(run, failure);
    progress.complete();
  } finally {
    process.off('SIGINT', onInterrupt);
    progress.end();
  }
}

function warn({ program, command }: ConvertRun, text: string): void {
  if (!command.quiet) program.err(`${program.name}: warning: ${text}\n`);
}

/**
 * The new target reads as zeroes: its files are new, too, or it names nothing of what they hold. A
 * device keeps what it held.
 */
function isZeroWhenNew({ target: { node }, values }: ConvertRun): boolean {
  const isPreallocated =
    (values?.get('preallocation') ?? 'off') !== 'off' || values?.get('data_file_raw') === 'on';
  if (node.driver.name === 'luks') return false;
  if (node.driver.name === 'qcow2' && !isPreallocated) return true;
  return isFile(node.children.get('data-file')?.node ?? node);
}

/** What stores the node's bytes is a file of the host, and no device. */
function isFile(node: Node): boolean {
  for (let at: Node | null = node; at !== null; at = at.primary) {
    const { hostFile } = at.driverNode;
    if (hostFile !== undefined) return hostFile.kind === 'file';
  }
  return false;
}

/** In the reference's words; a damaged image is named, since its chain or its fellows are not. */
function copyError(run: ConvertRun, { side, error }: CopyFailure): CliError {
  const verb = side === 'source' ? 'reading' : 'writing';
  const { offset } = error.context;
  const place = offset === undefined ? '' : ` at byte ${offset}`;
  const damaged = error.kind === 'corrupt-image';
  const names = side === 'source' ? run.command.sources : [run.command.target];
  const image = damaged ? ` (in '${names.join("', '")}')` : '';
  return new CliError(`error while ${verb}${place}: ${error.message}${image}`);
}
