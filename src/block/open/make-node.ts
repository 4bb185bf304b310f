// SPDX-License-Identifier: Apache-2.0
// A node before it is open: what it inherits, its flags from the options, and its file name.

import { BlockError, toBlockError } from '../../base/index.js';
import type { FileIdentity } from '../../host/index.js';
import { BlockNode } from '../block-node.js';
import type { Driver, OpenContext } from '../driver.js';
import type { NodeOptions, OpenPolicy } from '../graph-api.js';
import type { BlockGraph } from '../graph.js';
import { NULL_AIO_NAME, NULL_NAME } from './filename.js';

/** What a node gets from the one that refers to it, and from the command line. */
export interface OpenInheritance {
  readonly policy: OpenPolicy;
  readonly readOnly: boolean;
  readonly unmap: boolean;
  /** Files of the layers above, to notice a chain that bites its tail. */
  readonly chain: readonly FileIdentity[];
  /** The format of this layer was guessed through a header that names none. */
  readonly guessedBacking: boolean;
  readonly writeThrough: boolean;
}

export function rootContext(policy: OpenPolicy): OpenInheritance {
  return {
    policy,
    readOnly: policy.inspectOnly === true,
    unmap: policy.unmap === true,
    chain: [],
    guessedBacking: false,
    writeThrough: policy.writeThrough === true,
  };
}

/** Options every node has; the rest are the driver's. */
const BASE_OPTIONS = new Set([
  'driver',
  'node-name',
  'read-only',
  'auto-read-only',
  'force-share',
  'discard',
  'detect-zeroes',
  'cache',
]);

export function openContextOf(graph: BlockGraph, node: BlockNode): OpenContext {
  return {
    host: graph.host,
    node,
    readOnly: node.readOnly,
    inspectOnly: node.inspectOnly,
    child(name) {
      const edge = node.edges.get(name);
      if (edge !== undefined) return edge;
      throw new BlockError('invalid-option', `Parameter '${name}' is missing`, {
        node: node.name,
      });
    },
    throttleGroup: graph.throttleGroup,
    reportCorruption: (report) => graph.onCorruption(node, report),
  };
}

export interface NodeRequest {
  readonly driver: Driver;
  readonly options: NodeOptions;
  readonly inherited: OpenInheritance;
}

export function makeNode(graph: BlockGraph, request: NodeRequest): BlockNode {
  const { driver, options, inherited } = request;
  const { policy } = inherited;
  const readOnly = flag(options['read-only'], inherited.readOnly);
  const forceShare = flag(options['force-share'], policy.forceShare === true);
  if (forceShare && !readOnly) {
    throw new BlockError(
      'invalid-option',
      'force-share=on can only be used with read-only images',
    );
  }
  const unmap = options['discard'] === undefined ? inherited.unmap : options['discard'] === 'unmap';
  const detect = options['detect-zeroes'];
  const detectZeroes = detect === 'on' || detect === 'unmap' ? detect : 'off';
  if (detectZeroes === 'unmap' && !unmap) {
    throw new BlockError(
      'invalid-option',
      'setting detect-zeroes to unmap is not allowed without setting discard operation to unmap',
    );
  }
  const name = graph.names.claim(options['node-name']);
  return new BlockNode({
    name,
    driver,
    options: {
      ...options,
      'node-name': name,
      'force-share': forceShare,
      cache: cacheOptions(options, policy),
    },
    policy: { readOnly, writeThrough: inherited.writeThrough, unmap, detectZeroes },
    inspectOnly: policy.inspectOnly === true,
    forceShare,
  });
}

function flag(value: unknown, otherwise: boolean): boolean {
  return typeof value === 'boolean' ? value : otherwise;
}

/** Cache members as given for this node, else as the command line says. */
function cacheOptions(
  options: NodeOptions,
  policy: OpenPolicy,
): { readonly direct: boolean; readonly 'no-flush': boolean } {
  const own = (options['cache'] ?? {}) as Readonly<Record<string, unknown>>;
  return {
    direct: flag(own['direct'], policy.direct === true),
    'no-flush': flag(own['no-flush'], policy.noFlush === true),
  };
}

/** The same error with words in front; a loop is one line, however deep it was found. */
export function withPrefix(prefix: string, thrown: unknown): BlockError {
  const error = toBlockError(thrown);
  if (error.context.operation === 'backing-loop') return error;
  return new BlockError(error.kind, prefix + error.message, {
    ...error.context,
    cause: error,
  });
}

/** What opens the node again: a path when that is enough, else `json:` with the options. */
export function filenameOf(node: BlockNode): string {
  const strong = (node.driver.strongOptions ?? []).some(
    (option) => node.options[option] !== undefined,
  );
  if (!strong) {
    const own = node.options['filename'];
    if (typeof own === 'string') return own;
    const below = node.primary ?? node.filtered;
    const name = below === null ? null : nameOver(node.driver, below.filename);
    if (name !== null) return name;
    if (node.driver.name === 'null-co') return NULL_NAME;
    if (node.driver.name === 'null-aio') return NULL_AIO_NAME;
  }
  return `json:${JSON.stringify(reopenOptions(node))}`;
}

/** Null where the child's name does not open this node too. */
function nameOver({ kind, filenamePrefix }: Driver, below: string): string | null {
  if (filenamePrefix === undefined) {
    // A file name is opened by finding its format, which never is a filter.
    return kind === 'filter' || below.startsWith('json:') ? null : below;
  }
  return below === '' || below.startsWith('json:') ? null : filenamePrefix + below;
}

function reopenOptions(node: BlockNode): Record<string, unknown> {
  const options: Record<string, unknown> = { driver: node.driver.name };
  const strong = node.driver.strongOptions ?? [];
  for (const [key, value] of Object.entries(node.options)) {
    if (BASE_OPTIONS.has(key)) continue;
    const child = node.edges.get(key)?.node;
    const kept = key === 'filename' || value === null || strong.includes(key);
    if (child !== undefined) options[key] = reopenOptions(child);
    else if (!kept) continue;
    else if (Array.isArray(value)) flattenList(options, key, value);
    else options[key] = value;
  }
  return options;
}

/** Lists are spelled `name.0.member`, as names of images have them. */
function flattenList(target: Record<string, unknown>, key: string, list: unknown[]): void {
  for (const [index, item] of list.entries()) {
    if (typeof item !== 'object' || item === null) target[`${key}.${index}`] = item;
    else {
      for (const [member, value] of Object.entries(item)) {
        target[`${key}.${index}.${member}`] = value;
      }
    }
  }
}
