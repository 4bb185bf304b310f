// SPDX-License-Identifier: Apache-2.0
// Opening what the commands work on: an image by name, by options, or by both, in the cache and
// discard modes asked for, behind a temporary overlay or a copy-on-read filter.
//
// The temporary overlay has no name in its folder any more once it is open, so that nothing is left
// behind however the program ends.

import { mkdtempSync, rmdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { BlockError, Permission } from '../../base/index.js';
import { protocolOf } from '../../block/index.js';
import type { Backend, Node, OpenPolicy } from '../../block/index.js';
import { driverOptions } from '../../drivers/options-catalog.js';
import { parseKeyval } from '../../schema/index.js';
import type { KeyvalTree } from '../../schema/index.js';
import { createImage } from '../img/create-image.js';
import { createFormat, OptionValues } from '../img/create-options.js';
import { cachePolicy } from '../img/session.js';
import type { Session } from '../img/session.js';
import { CliError, hintOf, report } from '../program.js';
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
  return parseKeyval(items.filter((item) => item !== '').join(','));
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
    throw new CliError(`${start}: ${error.message}`, 1, hintOf(error));
  }
}

async function openAttached(session: Session, request: FileRequest): Promise<OpenFile> {
  const { graph } = session;
  if (request.nativeAio && cachePolicy(request.cache)?.direct !== true) {
    const text = 'aio=native was specified, but it requires cache.direct=on, which was not specified.';
    throw new BlockError('invalid-option', text);
  }
  if (request.copyOnRead && request.readOnly) {
    throw new BlockError('invalid-option', "Can't use copy-on-read on read-only device");
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
  const path = await openingName(session, name, options);
  try {
    return await session.graph.openImage(path, null, readOnly, policy);
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
    const prefix = `Could not open '${path}': `;
    if (!error.message.startsWith(prefix)) throw error;
    throw new BlockError(error.kind, error.message.slice(prefix.length), error.context);
  }
}

/** The name alone where it says it all, else the options as a name. */
async function openingName(
  session: Session,
  name: string | null,
  options: KeyvalTree,
): Promise<string> {
  if (name === '') {
    throw new BlockError('invalid-option', "The 'file' block driver requires a file name");
  }
  const { driver } = options;
  if (name === null && driver === undefined && options['file'] === undefined) {
    throw new BlockError('invalid-option', 'Must specify either driver or file');
  }
  if (typeof driver === 'string' && !Object.hasOwn(driverOptions, driver)) {
    throw new BlockError('invalid-option', `Unknown driver '${driver}'`);
  }
  if (name === null) return `json:${JSON.stringify(options)}`;
  if (Object.keys(options).length === 0) return name;
  return `json:${JSON.stringify(await withName(session, name, options))}`;
}

/** Options of the image and of its file, with the name where it belongs. */
async function withName(
  session: Session,
  name: string,
  options: KeyvalTree,
): Promise<Readonly<Record<string, unknown>>> {
  if (name.startsWith('json:')) {
    const own = JSON.parse(name.slice('json:'.length)) as Readonly<Record<string, unknown>>;
    return { ...own, ...options };
  }
  const { driver } = options;
  const { file } = options;
  const own = isTree(file) ? file : {};
  if (typeof file === 'string') return options;
  const isProtocol =
    typeof driver === 'string' && (await session.registry.load(driver)).kind === 'protocol';
  if (isProtocol) return { filename: name, ...options };
  const prefix = /^blkdebug:([^:]*):(.*)$/.exec(name);
  if (prefix === null) {
    const path = name.replace(/^file:/, '');
    return {
      ...options,
      file: { driver: await protocolOf(session.host, path), filename: path, ...own },
    };
  }
  const [, config = '', rest = ''] = prefix;
  const image = { driver: await protocolOf(session.host, rest), filename: rest };
  const rules = config === '' ? {} : { config };
  return { ...options, file: { driver: 'blkdebug', ...rules, image, ...own } };
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
