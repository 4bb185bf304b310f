// SPDX-License-Identifier: Apache-2.0
// Opening a host file as a node: options that are refused, and files that are open for writing
// only while someone may write (`auto-read-only`).

import { BlockError, Permission } from '../../../base/index.js';
import type { DriverNode, OpenContext } from '../../../block/index.js';
import type { HostFile, OpenFileOptions } from '../../../host/index.js';
import { FileNode, type FileNodeParts } from './node.js';
import type { FileOptions } from './options.js';

/** The driver's own options with those that every node has. */
export type FileNodeOptions = FileOptions & {
  readonly 'auto-read-only'?: boolean;
  readonly 'force-share'?: boolean;
  readonly cache?: { readonly direct?: boolean; readonly 'no-flush'?: boolean };
};

export async function openFile(
  context: OpenContext,
  options: FileNodeOptions,
): Promise<DriverNode> {
  return await openAs('file', context, options);
}

/** As openFile(), for block devices and nothing else. */
export async function openHostDevice(
  context: OpenContext,
  options: FileNodeOptions,
): Promise<DriverNode> {
  const found = await context.host.stat(options.filename);
  const fails = found === null || (found.kind === 'directory' && !context.readOnly);
  if (!fails && found.kind !== 'block-device') {
    throw new BlockError('invalid-option', wrongKind('host_device', options.filename), {
      path: options.filename,
    });
  }
  return await openAs('block-device', context, options);
}

async function openAs(
  kind: HostFile['kind'],
  context: OpenContext,
  options: FileNodeOptions,
): Promise<DriverNode> {
  refuseUnsupported(options);
  const flags = wantedFlags(context, options);
  const openAgain = opener(context, options, flags);
  const file = openAgain === null
    ? await context.host.openFile(options.filename, flags)
    : openAgain(true);
  if (file.kind !== kind) {
    await file.close();
    const driver = kind === 'file' ? 'file' : 'host_device';
    throw new BlockError('invalid-option', wrongKind(driver, options.filename), {
      path: options.filename,
    });
  }
  if (options.locking === 'on' && !file.capabilities.locks) {
    await file.close();
    throw new BlockError('unsupported', 'locking=on needs file locks, which this host lacks', {
      path: options.filename,
    });
  }
  return new FileNode({
    node: context.node,
    file,
    locked: options.locking !== 'off',
    flags,
    openAgain,
    taken: Permission.none,
    discards: { succeeded: 0, failed: 0, bytes: 0 },
    reopen: reopenFile,
  });
}

function wrongKind(driver: 'file' | 'host_device', path: string): string {
  const kind = driver === 'file' ? 'a regular file' : 'either a character or block device';
  return `'${driver}' driver requires '${path}' to be ${kind}`;
}

function wantedFlags(context: OpenContext, options: FileNodeOptions): OpenFileOptions {
  return {
    readOnly: context.readOnly,
    direct: options.cache?.direct === true,
    noFlush: options.cache?.['no-flush'] === true,
  };
}

function followsUsers(options: FileNodeOptions, flags: OpenFileOptions): boolean {
  return options['auto-read-only'] === true && !flags.readOnly;
}

/** Null unless the file is to be open for writing only while someone may write. */
function opener(
  context: OpenContext,
  options: FileNodeOptions,
  flags: OpenFileOptions,
): ((readOnly: boolean) => HostFile) | null {
  if (!followsUsers(options, flags)) return null;
  return (readOnly) => context.host.openFileNow(options.filename, { ...flags, readOnly });
}

/** The same file opened another way; the locks follow when the new instance takes over. */
async function reopenFile(
  current: FileNodeParts,
  context: OpenContext,
  options: FileNodeOptions,
): Promise<FileNodeParts> {
  const flags = wantedFlags(context, options);
  const isAutomatic = followsUsers(options, flags);
  const same =
    flags.direct === current.flags.direct &&
    flags.noFlush === current.flags.noFlush &&
    flags.readOnly === current.flags.readOnly &&
    isAutomatic === (current.openAgain !== null);
  if (same) return current;
  const openAgain = opener(context, options, flags);
  const file = openAgain === null
    ? await context.host.openFile(options.filename, flags)
    : openAgain((current.taken & ~Permission.consistentRead) === 0);
  const { device, inode } = current.file.identity;
  if (file.identity.device === device && file.identity.inode === inode) {
    return { ...current, file, flags, openAgain };
  }
  await file.close();
  const text = `Could not reopen '${options.filename}': another file has taken its name`;
  throw new BlockError('invalid-state', text, { path: options.filename });
}

function refuseUnsupported(options: FileNodeOptions): void {
  // All modes are served alike; only what they need is asked for.
  if (options.aio === 'native' && options.cache?.direct !== true) {
    const text = 'aio=native was specified, but it requires cache.direct=on';
    throw new BlockError('invalid-option', `${text}, which was not specified.`, {
      path: options.filename,
    });
  }
  if (options['x-check-cache-dropped'] === true) {
    throw new BlockError('unsupported', 'x-check-cache-dropped=on is not supported', {
      path: options.filename,
    });
  }
}
