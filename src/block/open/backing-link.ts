// SPDX-License-Identifier: Apache-2.0
// What the name of a backing file in a header may lead to: relative to which file, beside which
// options, through how long a chain, and never in a circle.

import { BlockError, IMAGE_LIMITS } from '../../base/index.js';
import type { FileIdentity } from '../../host/index.js';
import type { BlockNode } from '../block-node.js';
import { resolveBackingName } from './filename.js';
import { flagsOf, inheritedByOverlay, type OpenInheritance } from './make-node.js';

type Options = Readonly<Record<string, unknown>>;

const FILE = 'file';

/**
 * Options of a backing file whose `file` does not name a host file go with the name in the header,
 * which contradicts them.
 */
export function refuseBesideHeader(given: unknown): void {
  const file = memberOf(given, namedChild(given));
  const named = memberOf(memberOf(given, FILE), 'filename') !== undefined;
  if (typeof given !== 'object' || named) return;
  if (memberOf(given, 'driver') === 'quorum') {
    throw new BlockError(
      'invalid-option',
      "Block format 'quorum' does not support the option 'file'",
    );
  }
  let last = given;
  for (let at = file; at !== undefined; at = memberOf(at, namedChild(at))) last = at;
  if (typeof last === 'string') {
    const text =
      'Cannot reference an existing block device with additional options or a new filename';
    throw new BlockError('invalid-option', text);
  }
  if (memberOf(last, 'filename') !== undefined) {
    const text = "Can't specify 'file' and 'filename' options at the same time";
    throw new BlockError('invalid-option', text);
  }
  const driver = memberOf(last, 'driver');
  if (driver === 'null-co' || driver === 'null-aio') {
    const text = `The only allowed filename for this driver is '${driver}://'`;
    throw new BlockError('invalid-option', text);
  }
}

const STORES: readonly unknown[] = ['file', 'host_device', undefined];

/** Options of a file that do not say where it lies, or none. */
export function lacksName(file: unknown): file is Options | undefined {
  if (file === undefined) return true;
  if (typeof file !== 'object' || file === null) return false;
  const { driver, filename } = file as Options;
  return filename === undefined && STORES.includes(driver);
}

/** The child that a file name goes to. */
function namedChild(options: unknown): string {
  const driver = memberOf(options, 'driver');
  if (driver === 'blkdebug') return 'image';
  return driver === 'blkverify' ? 'test' : FILE;
}

function memberOf(value: unknown, name: string): unknown {
  if (typeof value !== 'object' || value === null) return undefined;
  return (value as Options)[name];
}

/** Relative to the file that stores the image, whatever filters stand between. */
export function backingPath(node: BlockNode, file: string): string {
  let storing = node;
  while (storing.pipeline.driverNode?.hostFile === undefined) {
    const below = storing.primary ?? storing.filtered;
    if (below === null) break;
    storing = below;
  }
  const path = storing.pipeline.driverNode?.hostFile?.path ?? node.filename;
  try {
    return resolveBackingName(path, file);
  } catch (error) {
    const { childLists, name } = storing.driver;
    if (childLists === undefined) throw error;
    const text = `Cannot generate a base directory for ${name} nodes`;
    throw new BlockError('invalid-option', text, { node: node.name, cause: error });
  }
}

export function guessedTooFar(node: BlockNode): BlockError {
  return new BlockError(
    'permission',
    `'${node.filename}' was guessed to be a '${node.driver.name}' image with a backing file of ` +
      'its own; the overlay must name its backing format',
    { path: node.filename },
  );
}

export function inheritedByBacking(
  node: BlockNode,
  inherited: OpenInheritance,
  facts: { readonly guessed: boolean; readonly given: boolean },
): OpenInheritance {
  const identity = primaryIdentity(node);
  if (inherited.chain.length >= IMAGE_LIMITS.backingChainDepth) {
    throw new BlockError(
      'corrupt-image',
      `Backing chain is longer than ${IMAGE_LIMITS.backingChainDepth} files`,
      { path: node.filename, operation: 'backing-loop' },
    );
  }
  const none: FileIdentity = { device: '', inode: `#${inherited.chain.length}` };
  return {
    ...inheritedByOverlay(flagsOf(node), inherited),
    // Options end; only headers can lead in a circle.
    chain: facts.given ? [] : [...inherited.chain, identity ?? none],
    guessedBacking: facts.guessed,
  };
}

function primaryIdentity(node: BlockNode): FileIdentity | null {
  for (let at: BlockNode | null = node; at !== null; at = at.primary ?? at.filtered) {
    const identity = at.pipeline.driverNode?.hostFile?.identity;
    if (identity !== undefined) return identity;
  }
  return null;
}

function sameFile(a: FileIdentity, b: FileIdentity): boolean {
  return a.device === b.device && a.inode === b.inode;
}

export function refuseLoop(node: BlockNode, inherited: OpenInheritance): void {
  const identity = primaryIdentity(node);
  if (identity === null || !inherited.chain.some((above) => sameFile(above, identity))) return;
  const file = node.primary?.filename ?? node.name;
  throw new BlockError('corrupt-image', `Backing file '${file}' creates an infinite loop.`, {
    path: file,
    operation: 'backing-loop',
  });
}
