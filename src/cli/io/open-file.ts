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
import type { Backend, Node, OpenPolicy } from '../../block/index.js';
import type { KeyvalTree } from '../../schema/index.js';
import { createImage } from '../img/create/image.js';
import { createFormat, OptionValues } from '../img/create/options.js';
import { cachePolicy } from '../img/session.js';
import type { Session } from '../img/session.js';
import { CliError } from '../program.js';

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
  const { driver, ...others } = options;
  if (name !== null && Object.keys(others).length === 0 && !isTree(driver)) {
    const format = typeof driver === 'string' ? driver : null;
    try {
      return await session.graph.openImage(name, format, readOnly, policy);
    } catch (error) {
      const { withoutPrefix } = await import('../img/options/open.js');
      throw error instanceof BlockError ? withoutPrefix(error, name) : error;
    }
  }
  const { openByOptions, withName } = await import('../img/options/open.js');
  const tree = name === null ? options : await withName(session, name, options);
  return await openByOptions(session, { tree, readOnly, policy });
}

function isTree(value: KeyvalTree[string] | undefined): boolean {
  return typeof value === 'object';
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
