// SPDX-License-Identifier: Apache-2.0
// Opening a node with its children, from options in the shape of `blockdev-add`.
//
// Order: the child `file` is opened, the name is claimed, the other children but the backing file
// are opened, each is attached, loops are looked for, the driver opens, permissions follow, then
// the backing file is opened as the options or the image header say. Of two faults the first in
// this order is told. Whatever fails, everything opened on the way is closed again.

import {
  BlockError,
  GRAPH_LIMITS,
  must,
  toBlockError,
  type Eventually,
} from '../../base/index.js';
import type { BlockNode } from '../block-node.js';
import { nameListedChildren } from '../child-lists.js';
import { ChildRole, type BackingLink, type Driver, type OpenContext } from '../driver.js';
import type { NodeOptions } from '../graph-api.js';
import type { BlockGraph } from '../graph.js';
import { refreshPermissions } from '../permissions.js';
import {
  backingPath,
  guessedTooFar,
  inheritedByBacking,
  lacksName,
  refuseBesideHeader,
  refuseLoop,
} from './backing-link.js';
import { foreignFormat } from './foreign-formats.js';
import {
  flagsOf,
  inheritedByChild,
  makeNode,
  nodeFlags,
  openContextOf,
  withPrefix,
  type NodeRequest,
  type OpenInheritance,
} from './make-node.js';
import { filenameOf } from './node-filename.js';
import { protocolOf } from './protocol-of.js';
import { probeHead, RawProbeGuard, readHead } from './probe.js';
import { optionsOf, optionsOfName, type ImageReference } from './reference.js';

type Options = Readonly<Record<string, unknown>>;

const FILE = 'file';

export async function openNode(
  graph: BlockGraph,
  asked: NodeOptions,
  inherited: OpenInheritance,
): Promise<BlockNode> {
  const driver = await graph.registry.load(asked.driver);
  const options = withoutEmptyBacking(driver, asked);
  const file = await openFileChild(graph, { driver, options, inherited });
  if (file === null) return await openWith(graph, { driver, options, inherited });
  return await holding(graph, file, () =>
    openWith(graph, { driver, options, inherited, file }),
  );
}

/** The empty name is the older spelling of no backing file. */
function withoutEmptyBacking(driver: Driver, options: NodeOptions): NodeOptions {
  const cow = Object.entries(driver.children).find(([, { role }]) => (role & ChildRole.cow) !== 0);
  return cow !== undefined && options[cow[0]] === '' ? { ...options, [cow[0]]: null } : options;
}

/** The child `file` is there before anything else of the node is looked at. */
async function openFileChild(
  graph: BlockGraph,
  { driver, options, inherited }: NodeRequest,
): Promise<BlockNode | null> {
  const value = options[FILE];
  if (driver.children[FILE] === undefined || value === undefined || value === null) return null;
  const flags = nodeFlags(options, inherited);
  return await openReference(graph, value, belowDriver(driver, flags, inherited));
}

async function openWith(
  graph: BlockGraph,
  request: NodeRequest & { readonly file?: BlockNode },
): Promise<BlockNode> {
  const { driver, inherited } = request;
  const node = makeNode(graph, request);
  try {
    driver.checkOptions?.(node.options);
    graph.enlist(node);
    await openChildren(graph, node, request);
    refuseLoop(node, inherited);
    await openListedChildren(graph, node, inherited);
    const context = contextOf(graph, node, inherited);
    node.pipeline.driverNode = await driver.open(context, node.options);
    node.pipeline.readOnly ||= node.pipeline.driverNode.readOnly === true;
    node.filename = filenameOf(node);
    refreshPermissions([node]).commit?.();
    await openBacking(graph, node, inherited);
    node.filename = filenameOf(node);
  } catch (error) {
    await graph.closeNode(node).catch(() => undefined);
    throw toBlockError(error, { node: node.name });
  }
  graph.adopt(node);
  return node;
}

async function openChildren(
  graph: BlockGraph,
  node: BlockNode,
  { inherited, file }: { readonly inherited: OpenInheritance; readonly file?: BlockNode },
): Promise<void> {
  for (const [name, declaration] of Object.entries(node.driver.children)) {
    if ((declaration.role & ChildRole.cow) !== 0) continue;
    if (declaration.role === ChildRole.data && inherited.policy.noData === true) {
      node.options = { ...node.options, [name]: undefined };
      continue;
    }
    const value = node.options[name];
    if (value === undefined || value === null) {
      if (!declaration.required) continue;
      throw new BlockError('invalid-option', `Parameter '${name}' is missing`, {
        node: node.name,
      });
    }
    const child = name === FILE && file !== undefined
      ? file
      : await openReference(graph, value, belowDriver(node.driver, flagsOf(node), inherited));
    await attachChild(graph, { parent: node, name, role: declaration.role, child });
    if (typeof value !== 'string') child.inheritsFrom = node;
  }
}

function contextOf(
  graph: BlockGraph,
  node: BlockNode,
  inherited: OpenInheritance,
): OpenContext {
  return {
    ...openContextOf(graph, node),
    noData: inherited.policy.noData === true,
    async openPlainChild(name, path) {
      const { role } = must(node.driver.children[name], `declared child '${name}'`);
      if (path === '') {
        throw new BlockError('invalid-option', "The 'file' block driver requires a file name");
      }
      // Never by what the name looks like: an image must not choose a protocol or options.
      const options = { driver: await protocolOf(graph.host, path), filename: path };
      const child = await openNode(graph, options, inheritedByChild(flagsOf(node), inherited));
      await attachChild(graph, { parent: node, name, role, child });
      child.inheritsFrom = node;
      return must(node.edges.get(name), `child '${name}'`);
    },
  };
}

/** Children of lists, by name in the order in which they are given. */
async function openListedChildren(
  graph: BlockGraph,
  node: BlockNode,
  inherited: OpenInheritance,
): Promise<void> {
  for (const [option, { role, required }] of Object.entries(node.driver.childLists ?? {})) {
    const values = listedChildren(node, option, required);
    for (const [index, value] of values.entries()) {
      const below = inheritedByChild(flagsOf(node), inherited);
      const child = await openReference(graph, value, below);
      await attachChild(graph, { parent: node, name: `${option}.${index}`, role, child });
      if (typeof value !== 'string') child.inheritsFrom = node;
    }
    nameListedChildren(node);
  }
}

function listedChildren(node: BlockNode, option: string, required: boolean): readonly unknown[] {
  const values = node.options[option] ?? [];
  if (!Array.isArray(values)) {
    throw new BlockError('invalid-option', `Option ${option} is not a valid array`);
  }
  if (required && values.length === 0) {
    throw new BlockError('invalid-option', `Number of provided ${option} must be 1 or more`);
  }
  if (values.length > GRAPH_LIMITS.listedChildren) {
    throw new BlockError(
      'invalid-option',
      `Number of provided ${option} is ${values.length}, ${GRAPH_LIMITS.listedChildren} at most`,
    );
  }
  return values;
}

async function attachChild(
  graph: BlockGraph,
  edge: { parent: BlockNode; name: string; role: number; child: BlockNode },
): Promise<void> {
  const { parent, name, child } = edge;
  try {
    graph.addEdge(edge);
  } catch (error) {
    await graph.closeIfUnused(child).catch(() => undefined);
    throw error;
  }
  if (!Object.hasOwn(parent.driver.children, name)) return;
  parent.options = { ...parent.options, [name]: child.name };
  if (Object.hasOwn(parent.given, name)) parent.given = { ...parent.given, [name]: child.name };
}

/** A node name, or options of a node that dies with its parent. */
function belowDriver(
  { kind }: Driver,
  flags: ReturnType<typeof nodeFlags>,
  inherited: OpenInheritance,
): OpenInheritance {
  const isProtocol = kind === 'format' || (kind === 'filter' && inherited.isProtocol);
  return { ...inheritedByChild(flags, inherited), isProtocol };
}

async function openReference(
  graph: BlockGraph,
  value: unknown,
  inherited: OpenInheritance,
): Promise<BlockNode> {
  if (typeof value === 'string') return graph.require(value);
  if (typeof value !== 'object' || value === null) {
    throw new BlockError('invalid-option', 'A child is a node name or the options of a node');
  }
  const options = value as Readonly<Record<string, unknown>>;
  return await openNamed(graph, { options, format: null }, inherited);
}

async function openBacking(
  graph: BlockGraph,
  node: BlockNode,
  inherited: OpenInheritance,
): Promise<void> {
  const declared = Object.entries(node.driver.children).find(
    ([, declaration]) => (declaration.role & ChildRole.cow) !== 0,
  );
  if (declared === undefined) return;
  const [name, { role }] = declared;
  const given = node.options[name];
  const link = node.pipeline.open().backingLink?.() ?? null;
  if (inherited.guessedBacking && link !== null) throw guessedTooFar(node);
  if (given === null || (given === undefined && (link === null || inherited.policy.noBacking))) {
    return;
  }
  const named =
    given !== undefined || link === null
      ? null
      : { path: backingPath(node, link.file), format: link.format };
  try {
    if (given !== undefined && link !== null) refuseBesideHeader(given);
    const below = inheritedByBacking(node, inherited, {
      guessed: link?.format === null && (given === undefined || leavesFormat(given)),
      given: given !== undefined,
    });
    const child =
      named === null
        ? await openReference(graph, await withFile(graph, { node, given, link }), below)
        : await openNamed(graph, named, below);
    await attachChild(graph, { parent: node, name, role, child });
    if (typeof given !== 'string') child.inheritsFrom = node;
  } catch (error) {
    throw withPrefix('Could not open backing file: ', error);
  }
}

/**
 * A driver without a file is that of the file which the header names; without a driver either, the
 * options are put over that name and its format.
 */
async function withFile(
  graph: BlockGraph,
  reference: {
    readonly node: BlockNode;
    readonly given: unknown;
    readonly link: BackingLink | null;
  },
): Promise<unknown> {
  const { node, given, link } = reference;
  if (leavesFormat(given)) return withFormat(graph, { node, given, link });
  if (typeof given !== 'object' || given === null) return given;
  const { driver: name, file } = given as Options;
  if (typeof name !== 'string' || !lacksName(file)) return given;
  const driver = await graph.registry.load(name);
  if (driver.kind !== 'format' || driver.children['file']?.required !== true) return given;
  if (link === null) {
    throw new BlockError('invalid-option', 'A block device must be specified for "file"');
  }
  const named = await optionsOfName(graph, backingPath(node, link.file));
  return { ...given, file: { ...named, ...file } };
}

/** Whether these options say neither of what format a backing file is nor where it lies. */
function leavesFormat(given: unknown): given is Options {
  if (typeof given !== 'object' || given === null) return false;
  const { driver, file, filename } = given as Options;
  return driver === undefined && filename === undefined && lacksName(file);
}

async function withFormat(
  graph: BlockGraph,
  reference: {
    readonly node: BlockNode;
    readonly given: Options;
    readonly link: BackingLink | null;
  },
): Promise<Options> {
  const { node, given, link } = reference;
  if (link === null) throw new BlockError('invalid-option', 'Must specify either driver or file');
  const named = await optionsOfName(graph, backingPath(node, link.file));
  const { driver } = named;
  const isWhole =
    typeof driver === 'string' && (await graph.registry.load(driver)).kind !== 'protocol';
  if (isWhole) return { ...named, ...given };
  const format = link.format === null ? {} : { driver: link.format };
  const { file } = given;
  return { ...format, ...given, file: lacksName(file) ? { ...named, ...file } : named };
}

export async function openNamed(
  graph: BlockGraph,
  reference: ImageReference,
  inherited: OpenInheritance,
): Promise<BlockNode> {
  const { format } = reference;
  const options = await optionsOf(graph, reference);
  const { driver } = options;
  if (typeof driver === 'string') {
    const kind = (await graph.registry.load(driver)).kind;
    const complete = { ...options, driver };
    if (kind !== 'protocol' || 'options' in reference) {
      // A format that was asked for counts more than that of a name.
      return await openNode(graph, { ...options, driver: format ?? driver }, inherited);
    }
    return await openOver(graph, { file: complete, format, rest: {} }, inherited);
  }
  const { file, ...rest } = options;
  if (typeof options['filename'] === 'string' && file === undefined) {
    // Below a format it is a host file; a backing file's format is found.
    const named = { driver: await protocolOf(graph.host, options['filename']), ...options };
    const below = named as NodeOptions;
    if (inherited.isProtocol) return openNode(graph, below, inherited);
    return await openOver(graph, { file: below, format, rest: {} }, inherited);
  }
  if (typeof file === 'object' && file !== null) {
    // Without a driver a file name is that of a host file.
    const { filename } = file as Options;
    const below = { driver: await protocolOf(graph.host, filename), ...file } as NodeOptions;
    return await openOver(graph, { file: below, format, rest }, inherited);
  }
  throw new BlockError('invalid-option', "Parameter 'driver' is missing");
}

interface OverRequest {
  readonly file: NodeOptions;
  readonly format: string | null;
  readonly rest: Options;
}

/** Opens the protocol node, finds the format unless it is given, and opens that over it. */
async function openOver(
  graph: BlockGraph,
  request: OverRequest,
  inherited: OpenInheritance,
): Promise<BlockNode> {
  if (request.format !== null) {
    const asked = await graph.registry.load(request.format);
    if (asked.kind === 'protocol') {
      if (asked.name === 'null-co' && request.file.driver !== asked.name) {
        const text = "The only allowed filename for this driver is 'null-co://'";
        throw new BlockError('invalid-option', text);
      }
      return await openNode(graph, { ...request.file, driver: asked.name }, inherited);
    }
    // A name such as `blkdebug::PATH` says all of it.
    if (request.file.driver === asked.name && asked.kind === 'filter') {
      return await openNode(graph, request.file, inherited);
    }
  }
  const below: OpenInheritance = {
    ...inherited,
    unmap: true,
    writeThrough: false,
    guessedBacking: false,
  };
  const file = await openNode(graph, request.file, below);
  return await holding(graph, file, async () => {
    const probed = request.format === null ? await graph.registry.probed() : [];
    const head = request.format === null ? await readHead(file) : new Uint8Array(0);
    const format = request.format ?? probeHead(head, probed)?.name ?? rawUnlessForeign(head);
    const options = { ...request.rest, driver: format, file: file.name };
    const node = await openNode(graph, options, inherited);
    file.inheritsFrom = node;
    if (request.format === null && format === 'raw') {
      node.probedRaw = true;
      // Also where it is read-only: it may become writable later.
      node.addObserver(new RawProbeGuard(head, probed, node.name));
    }
    return node;
  });
}

function rawUnlessForeign(head: Uint8Array): 'raw' {
  const foreign = foreignFormat(head);
  if (foreign === null) return 'raw';
  if (foreign === 'luks' && head[7] === 2) {
    // To other programs it is raw: whoever means its data has to say so.
    throw new BlockError('unsupported', 'Its LUKS header is of version 2, which is not guessed', {
      hint: "Specify the format 'luks' for its data, or 'raw' to use its bytes as they are.",
    });
  }
  const version = (head[6] ?? 0) * 256 + (head[7] ?? 0);
  const what =
    foreign === 'luks' && version !== 1
      ? `Its LUKS header is of version ${version}, which is not supported`
      : `Image format '${foreign}' is not supported`;
  throw new BlockError('unsupported', what, {
    hint: "Specify the format 'raw' explicitly to use its bytes as they are.",
  });
}

/** Keeps `node` open during `work`; afterwards it lives only if something else uses it. */
async function holding<T>(
  graph: BlockGraph,
  node: BlockNode,
  work: () => Eventually<T>,
): Promise<T> {
  node.references += 1;
  try {
    return await work();
  } finally {
    node.references -= 1;
    await graph.closeIfUnused(node);
  }
}
