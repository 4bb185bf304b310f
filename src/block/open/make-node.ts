// SPDX-License-Identifier: Apache-2.0
// A node before it is open: what it inherits, its flags from the options, and its file name.

import { BlockError, toBlockError } from '../../base/index.js';
import type { FileIdentity } from '../../host/index.js';
import { BlockNode } from '../block-node.js';
import type { Driver, OpenContext } from '../driver.js';
import type { NodeOptions, OpenPolicy } from '../graph-api.js';
import type { BlockGraph } from '../graph.js';
import type { PipelinePolicy } from '../pipeline/pipeline.js';
import { looseFlag } from './loose-options.js';

type Options = Readonly<Record<string, unknown>>;

/** What a node gets from the one that refers to it, and from the command line. */
export interface OpenInheritance {
  readonly policy: OpenPolicy;
  readonly readOnly: boolean;
  readonly autoReadOnly: boolean;
  readonly unmap: boolean;
  /** Files of the layers above, to notice a chain that bites its tail. */
  readonly chain: readonly FileIdentity[];
  /** The format of this layer was guessed through a header that names none. */
  readonly guessedBacking: boolean;
  readonly writeThrough: boolean;
  /** A file name alone stands for a host file here: no format is looked for above it. */
  readonly isProtocol: boolean;
}

export function rootContext(policy: OpenPolicy): OpenInheritance {
  return {
    policy,
    readOnly: policy.inspectOnly === true,
    autoReadOnly: false,
    unmap: policy.unmap === true,
    chain: [],
    guessedBacking: false,
    writeThrough: policy.writeThrough === true,
    isProtocol: false,
  };
}

export function openContextOf(graph: BlockGraph, node: BlockNode): OpenContext {
  return {
    host: graph.host,
    node,
    readOnly: node.readOnly,
    inspectOnly: node.inspectOnly,
    repairs: node.repairs,
    child(name) {
      const edge = node.edges.get(name);
      if (edge !== undefined) return edge;
      throw new BlockError('invalid-option', `Parameter '${name}' is missing`, {
        node: node.name,
      });
    },
    throttleGroup: graph.throttleGroup,
    secret: graph.secret,
    signal: graph.ending,
    findNode: (name) => graph.find(name),
    freezeChain: (base) => graph.freezeChain(node, base, node.name),
    emit: graph.onEvent,
    permissionsChanged: () => graph.refreshNode(node),
    warn: (text) => graph.onWarning(text),
    tellFinding: (line) => graph.onFinding(line),
    reportCorruption: (report) => graph.onCorruption(node, report),
  };
}

export interface NodeRequest {
  readonly driver: Driver;
  readonly options: NodeOptions;
  readonly inherited: OpenInheritance;
}

export interface NodeFlags {
  readonly forceShare: boolean;
  readonly autoReadOnly: boolean;
  readonly cache: { readonly direct: boolean; readonly 'no-flush': boolean };
  readonly policy: PipelinePolicy;
}

/** What the options that every node has come to. Throws kind `invalid-option` for a wrong flag. */
export function nodeFlags(options: Options, inherited: OpenInheritance): NodeFlags {
  const { policy } = inherited;
  const readOnly = flag('read-only', options['read-only'], inherited.readOnly);
  const forceShare = flag('force-share', options['force-share'], policy.forceShare === true);
  const unmap = options['discard'] === undefined ? inherited.unmap : options['discard'] === 'unmap';
  const detect = options['detect-zeroes'];
  const detectZeroes = detect === 'on' || detect === 'unmap' ? detect : 'off';
  return {
    forceShare,
    autoReadOnly: flag('auto-read-only', options['auto-read-only'], inherited.autoReadOnly),
    cache: cacheOptions(options, policy),
    policy: { readOnly, writeThrough: inherited.writeThrough, unmap, detectZeroes },
  };
}

/** Unmapping zeroes needs discards. Throws kind `invalid-option`. */
export function requireUnmap({ policy }: NodeFlags): void {
  if (policy.detectZeroes !== 'unmap' || policy.unmap) return;
  throw new BlockError(
    'invalid-option',
    'setting detect-zeroes to unmap is not allowed without setting discard operation to unmap',
  );
}

export function makeNode(graph: BlockGraph, request: NodeRequest): BlockNode {
  const { driver, options, inherited } = request;
  const flags = nodeFlags(options, inherited);
  const { forceShare, cache, policy } = flags;
  if (forceShare && !policy.readOnly) {
    throw new BlockError(
      'invalid-option',
      'force-share=on can only be used with read-only images',
    );
  }
  requireUnmap(flags);
  const name = graph.names.claim(options['node-name']);
  return new BlockNode({
    name,
    driver,
    options: {
      ...options,
      'node-name': name,
      'force-share': forceShare,
      'auto-read-only': flags.autoReadOnly,
      cache,
    },
    given: options,
    policy,
    inspectOnly: inherited.policy.inspectOnly === true,
    repairs: inherited.policy.repair === true,
    forceShare,
  });
}

/** What a child that is not a backing file gets from its parent. */
export function inheritedByChild(flags: NodeFlags, inherited: OpenInheritance): OpenInheritance {
  return {
    ...inherited,
    policy: {
      ...inherited.policy,
      direct: flags.cache.direct,
      noFlush: flags.cache['no-flush'],
      forceShare: flags.forceShare,
    },
    readOnly: flags.policy.readOnly,
    autoReadOnly: flags.autoReadOnly,
    unmap: true,
    writeThrough: false,
    guessedBacking: false,
  };
}

function flag(name: string, value: unknown, otherwise: boolean): boolean {
  return value === undefined ? otherwise : looseFlag(name, value);
}

/** Cache members as given for this node, else as the command line says. */
function cacheOptions(
  options: Options,
  policy: OpenPolicy,
): { readonly direct: boolean; readonly 'no-flush': boolean } {
  const own = options['cache'] ?? {};
  if (typeof own !== 'object' || Array.isArray(own)) {
    const text = "Invalid parameter type for 'cache', expected: object";
    throw new BlockError('invalid-option', text);
  }
  const { direct, 'no-flush': noFlush, ...others } = own as Readonly<Record<string, unknown>>;
  const [other] = Object.keys(others);
  if (other !== undefined) {
    throw new BlockError('invalid-option', `Parameter 'cache.${other}' is unexpected`);
  }
  return {
    direct: flag('cache.direct', direct, policy.direct === true),
    'no-flush': flag('cache.no-flush', noFlush, policy.noFlush === true),
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

/** What a backing file gets from its overlay. */
export function inheritedByOverlay(flags: NodeFlags, inherited: OpenInheritance): OpenInheritance {
  const below = inheritedByChild(flags, inherited);
  return { ...below, readOnly: true, autoReadOnly: false, isProtocol: false };
}

export function flagsOf(node: BlockNode): NodeFlags {
  return {
    forceShare: node.forceShare,
    autoReadOnly: node.options['auto-read-only'] === true,
    cache: node.options['cache'] as NodeFlags['cache'],
    policy: { ...node.pipeline.policy, readOnly: node.readOnly },
  };
}
