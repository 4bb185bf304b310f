// SPDX-License-Identifier: Apache-2.0
// Opening what the commands work on: an image by name, by options, or by both, in the cache and
// discard modes asked for, behind a temporary overlay or a copy-on-read filter.
//
// The temporary overlay has no name in its folder any more once it is open, so that nothing is left
// behind however the program ends.

import { mkdtempSync, rmdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { BlockError, parseSize, Permission } from '../../base/index.js';
import { parseFilename, protocolOf } from '../../block/index.js';
import type { Backend, Node, OpenPolicy } from '../../block/index.js';
import { driverOptions } from '../../drivers/options-catalog.js';
import { parseKeyval, validate } from '../../schema/index.js';
import type { KeyvalTree } from '../../schema/index.js';
import { createImage } from '../img/create/image.js';
import { createFormat, OptionValues } from '../img/create/options.js';
import { cachePolicy } from '../img/session.js';
import type { Session } from '../img/session.js';
import { CliError, report } from '../program.js';
import type { Program } from '../program.js';

export interface OpenFile {
  /** What requests go to. */
  readonly node: Node;
  /** What a reopen changes: below a copy-on-read filter. */
  readonly image: Node;
  readonly backend: Backend;
  /** Mode and flags in force. */
  readonly modes: FileModes;
  close(): Promise<void>;
}

/** Each write is durable when it ends, as in the reference. */
export const DEFAULT_CACHE = 'writethrough';

export interface FileModes {
  readonly cache: string;
  readonly readOnly: boolean;
}

export interface FileRequest {
  /** Null: the options say it all. */
  readonly name: string | null;
  readonly options: KeyvalTree;
  readonly readOnly: boolean;
  readonly snapshot: boolean;
  readonly copyOnRead: boolean;
  readonly forceShare: boolean;
  /** Checked already. */
  readonly cache: string;
  readonly unmap: boolean;
  readonly nativeAio: boolean;
}

export function requireCacheMode(mode: string): string {
  if (cachePolicy(mode) !== null) return mode;
  throw new CliError(`Invalid cache option: ${mode}`);
}

/** True when discards are to reach the file. */
export function discardMode(mode: string): boolean {
  if (mode === 'unmap' || mode === 'on') return true;
  if (mode === 'ignore' || mode === 'off') return false;
  throw new CliError(`Invalid discard option: ${mode}`);
}

/** True for the mode that needs `cache=none`. */
export function aioMode(mode: string): boolean {
  if (!['threads', 'native', 'io_uring'].includes(mode)) {
    throw new CliError(`Invalid aio option: ${mode}`);
  }
  return mode === 'native';
}

/** `NAME=VALUE,…` with dotted names; a name alone means `on`, with a warning. */
export function optionTree(text: string, program: Program): KeyvalTree {
  // A comma is doubled inside a value.
  const items = text.replaceAll(',,', '\u0000').split(',').map((item) => {
    const plain = item.replaceAll('\u0000', ',,');
    if (plain === '' || plain.includes('=')) return plain;
    const isOff = plain.startsWith('no') && plain.length > 2;
    const full = isOff ? `${plain.slice(2)}=off` : `${plain}=on`;
    const hint = `Please use ${full} instead\n`;
    report(program, `warning: short-form boolean option '${plain}' deprecated`, hint);
    return full;
  });
  return withSizes(withModes(items.filter((item) => item !== '')));
}

const OVERLAP = 'overlap-check';

/** Overlap checks may be named by mode and by template at once; checkOptions() compares them. */
function withModes(items: readonly string[]): KeyvalTree {
  const start = `${OVERLAP}=`;
  const mode = items.findLast((item) => item.startsWith(start))?.slice(start.length);
  const tree = parseKeyval(items.filter((item) => !item.startsWith(start)).join(','));
  if (mode === undefined) return tree;
  const checks = tree[OVERLAP];
  return { ...tree, [OVERLAP]: isTree(checks) ? { ...checks, mode } : mode };
}

const OVERLAP_MODES = ['none', 'constant', 'cached', 'all'];

/** The options as they are declared; refuses values in the words that command lines have for it. */
export function checkedOptions(tree: KeyvalTree): KeyvalTree {
  const checks = tree[OVERLAP];
  if (checks === undefined || Array.isArray(checks)) return tree;
  const { mode, template, ...flags } = isTree(checks) ? checks : { mode: checks };
  const shown = (value: KeyvalTree[string]): string => (typeof value === 'string' ? value : '');
  if (mode !== undefined && template !== undefined && mode !== template) {
    throw new BlockError(
      'invalid-option',
      `Conflicting values for qcow2 options '${OVERLAP}' ('${shown(mode)}') and ` +
        `'${OVERLAP}.template' ('${shown(template)}')`,
    );
  }
  const chosen = template ?? mode;
  if (chosen === undefined) return tree;
  if (typeof chosen !== 'string' || !OVERLAP_MODES.includes(chosen)) {
    throw new BlockError(
      'invalid-option',
      `Unsupported value '${shown(chosen)}' for qcow2 option '${OVERLAP}'. ` +
        `Allowed are any of the following: ${OVERLAP_MODES.join(', ')}`,
    );
  }
  return { ...tree, [OVERLAP]: { ...flags, template: chosen } };
}

/** Options that are numbers in the declarations may be sizes with suffixes here. */
const SIZES = /^(size|offset|align|(max|opt)-.*|.*cache-size|prealloc-.*)$/;

function withSizes(tree: KeyvalTree): KeyvalTree {
  const entries = Object.entries(tree).map(([key, value]) => {
    if (isTree(value)) return [key, withSizes(value)] as const;
    if (typeof value !== 'string' || !SIZES.test(key)) return [key, value] as const;
    const parsed = parseSize(value);
    return [key, parsed.ok ? String(parsed.bytes) : value] as const;
  });
  return Object.fromEntries(entries);
}

/** A later list goes before an earlier one. */
export function joinedOptions(a: KeyvalTree, b: KeyvalTree): KeyvalTree {
  return { ...a, ...b };
}

/** Throws a CliError that says which file could not be opened. */
export async function openFile(session: Session, request: FileRequest): Promise<OpenFile> {
  const { name } = request;
  try {
    return await openAttached(session, request);
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
    const start = name === null ? "can't open" : `can't open device ${name}`;
    throw new CliError(`${start}: ${error.message}`, 1, error);
  }
}

async function openAttached(session: Session, request: FileRequest): Promise<OpenFile> {
  const { graph } = session;
  if (request.nativeAio && cachePolicy(request.cache)?.direct !== true) {
    const text = 'aio=native was specified, but it requires cache.direct=on';
    throw new BlockError('invalid-option', `${text}, which was not specified.`);
  }
  if (request.copyOnRead && request.readOnly) {
    throw new BlockError('invalid-option', "Can't use copy-on-read on read-only device");
  }
  if (request.forceShare && (request.options['force-share'] ?? 'on') !== 'on') {
    throw new CliError('-U conflicts with image options');
  }
  const held: Node[] = [];
  try {
    const image = await openImage(session, request);
    held.push(image);
    let node = image;
    if (request.copyOnRead) {
      node = await graph.open({ driver: 'copy-on-read', file: image.name });
      held.push(node);
    }
    const writing = request.readOnly ? Permission.none : Permission.write;
    const permissions = { taken: Permission.consistentRead | writing, shared: Permission.all };
    const backend = await graph.attach(node, 'io', permissions);
    const close = async (): Promise<void> => {
      await backend.detach();
      for (const each of held.toReversed()) await graph.close(each);
    };
    const modes = { cache: request.cache, readOnly: request.readOnly };
    return { node, image, backend, modes, close };
  } catch (error) {
    for (const each of held.toReversed()) await graph.close(each).catch(() => undefined);
    throw error;
  }
}

async function openImage(session: Session, request: FileRequest): Promise<Node> {
  const policy: OpenPolicy = {
    ...cachePolicy(request.cache),
    unmap: request.unmap,
    forceShare: request.forceShare,
  };
  if (!request.snapshot) return openNamed(session, request, policy);
  const base = await openNamed(session, { ...request, readOnly: true }, policy);
  try {
    return await openOverlay(session, base, request.readOnly);
  } finally {
    await session.graph.close(base);
  }
}

async function openNamed(
  session: Session,
  { name, options, readOnly }: FileRequest,
  policy: OpenPolicy,
): Promise<Node> {
  if (name === '') {
    throw new BlockError('invalid-option', "The 'file' block driver requires a file name");
  }
  const { driver, ...others } = checkedOptions(options);
  const request = { name, driver, options: others, readOnly };
  let path = '';
  try {
    if (name === null || Object.keys(others).length > 0) {
      const tree = await fullOptions(session, request);
      if (typeof tree.driver === 'string') return await openTree(session, tree, policy);
      path = `json:${JSON.stringify(tree)}`;
    } else {
      path = name;
    }
    const format = typeof driver === 'string' ? driver : null;
    return await session.graph.openImage(path, format, readOnly, policy);
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
    throw await withoutPrefix(session, error, { name, driver, path });
  }
}

/** Says what is wrong without repeating the name. */
async function withoutPrefix(
  session: Session,
  error: BlockError,
  request: Pick<NamedRequest, 'name' | 'driver'> & { readonly path: string },
): Promise<BlockError> {
  const { name } = request;
  const prefix = `Could not open '${request.path}': `;
  const { message, kind, context } = error;
  const rest = message.startsWith(prefix) ? message.slice(prefix.length) : message;
  const unknown = /^Parameter '(.*)' is unexpected$/.exec(rest)?.[1];
  if (unknown === undefined || unknown.includes('.') || name === null) {
    return new BlockError(kind, rest, context);
  }
  const driver = await driverOf(session, { ...request, name });
  return new BlockError(
    'invalid-option',
    `Block format '${driver}' does not support the option '${unknown}'`,
    context,
  );
}

/** The driver that a name is opened by. */
async function driverOf(
  session: Session,
  { name, driver }: { readonly name: string; readonly driver: KeyvalTree[string] | undefined },
): Promise<string> {
  if (typeof driver === 'string') return driver;
  const policy = { inspectOnly: true, noData: true };
  const node = await session.graph.openImage(name, null, true, policy);
  await session.graph.close(node);
  return node.driver.name;
}

type Tree = Readonly<Record<string, unknown>>;

interface NamedRequest {
  readonly name: string | null;
  readonly driver: KeyvalTree[string] | undefined;
  /** Without the driver. */
  readonly options: KeyvalTree;
  readonly readOnly: boolean;
}

/** Options of the image and of its file, with the name where it belongs. */
async function fullOptions(session: Session, request: NamedRequest): Promise<Tree> {
  const { name, driver, options, readOnly } = request;
  if (driver === undefined) {
    if (name === null && options['file'] === undefined) {
      throw new BlockError('invalid-option', 'Must specify either driver or file');
    }
    return withProtocols(session, withName(name, options));
  }
  if (typeof driver !== 'string' || !Object.hasOwn(driverOptions, driver)) {
    const unknown = typeof driver === 'string' ? driver : '';
    throw new BlockError('invalid-option', `Unknown driver '${unknown}'`);
  }
  const { kind, children } = await session.registry.load(driver);
  const tree = await namedTree(session, { ...request, kind });
  if (children['file']?.required === true && tree['file'] === undefined) {
    throw new BlockError('invalid-option', 'A block device must be specified for "file"');
  }
  const access = options['read-only'] === undefined ? { 'read-only': readOnly } : {};
  return { ...(await withProtocols(session, tree)), ...access, driver };
}

async function namedTree(
  session: Session,
  { name, driver, options, kind }: NamedRequest & { readonly kind: string },
): Promise<Tree> {
  if (name === null) return options;
  if (driver === 'blkdebug') return debugTree(session, name, options);
  return kind === 'protocol' ? { filename: name, ...options } : withName(name, options);
}

/** The name is that of the image below, or of its file where a format is given for it. */
async function debugTree(session: Session, name: string, options: KeyvalTree): Promise<Tree> {
  const parsed = parseFilename(name.startsWith('blkdebug:') ? name : `blkdebug::${name}`);
  const named = parsed.kind === 'options' ? (parsed.options['file'] as Tree) : {};
  const own = isTree(options['image']) ? options['image'] : {};
  const { image: file, ...rules } = named;
  const { driver } = own;
  const format = typeof driver === 'string' ? await session.registry.load(driver) : null;
  const image =
    format?.kind === 'format'
      ? { ...own, file: { ...(file as Tree), ...(isTree(own['file']) ? own['file'] : {}) } }
      : { ...(file as Tree), ...own };
  return { ...rules, ...options, image };
}

function withName(name: string | null, options: KeyvalTree): Tree {
  const { file } = options;
  if (name === null || typeof file === 'string') return options;
  const parsed = parseFilename(name);
  const own = isTree(file) ? file : {};
  if (own['filename'] !== undefined) {
    const text = "Can't specify 'file' and 'filename' options at the same time";
    throw new BlockError('invalid-option', text);
  }
  if (parsed.kind === 'path') return { ...options, file: { filename: parsed.path, ...own } };
  const { driver, ...named } = parsed.options;
  if (driver === undefined) return { ...named, ...options };
  return { ...options, file: { ...named, driver, ...own } };
}

/** Files whose driver is not named are host files. */
async function withProtocols(session: Session, tree: Tree): Promise<Tree> {
  const result: Record<string, unknown> = {};
  for (const [key, value] of Object.entries(tree)) {
    const isMember = typeof value === 'object' && value !== null && !Array.isArray(value);
    if (!isMember) {
      result[key] = value;
      continue;
    }
    const inner = await withProtocols(session, value as Tree);
    const isFile = typeof inner['filename'] === 'string' && inner['driver'] === undefined;
    const protocol = isFile ? { driver: await protocolOf(session.host, inner['filename']) } : {};
    result[key] = { ...inner, ...protocol };
  }
  return result;
}

/** As it stands, and no format is looked for above it. */
async function openTree(session: Session, tree: Tree, policy: OpenPolicy): Promise<Node> {
  const { blockdevOptions } = await import('../../api/index.js');
  const options = validate(blockdevOptions, asTexts(tree), '', 'keyval') as Tree;
  return await session.graph.open({ ...options, driver: String(tree['driver']) }, policy);
}

/** The form in which options of command lines are checked. */
function asTexts(value: unknown): unknown {
  if (typeof value === 'boolean') return value ? 'on' : 'off';
  if (typeof value !== 'object' || value === null) return value;
  if (Array.isArray(value)) return value.map(asTexts);
  return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, asTexts(each)]));
}

function isTree(value: KeyvalTree[string] | undefined): value is KeyvalTree {
  return typeof value === 'object' && !Array.isArray(value);
}

async function openOverlay(session: Session, base: Node, readOnly: boolean): Promise<Node> {
  const folder = mkdtempSync(join(tmpdir(), 'blockwright-io-'));
  const path = join(folder, 'overlay');
  try {
    const format = createFormat('qcow2');
    if (format === null) throw new BlockError('unsupported', "Unknown file format 'qcow2'");
    await createImage(session, { path, values: new OptionValues(format), size: base.length });
    const file = { driver: 'file', filename: path };
    const options = { driver: 'qcow2', file, backing: base.name, 'read-only': readOnly };
    return await session.graph.open(options, { noFlush: true });
  } finally {
    await session.host.removeFile(path).catch(() => undefined);
    rmdirSync(folder);
  }
}
