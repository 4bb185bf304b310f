// SPDX-License-Identifier: Apache-2.0
// Opening an image by its name with options beside it, as commands do that make or open the target
// of a job: `json:` texts are the options themselves, where those given count for more.
//
// Of several faults that of the name's text is told first, then that of the driver, then that of
// the file.

import { BlockError } from '../../base/index.js';
import type { BlockNode } from '../block-node.js';
import { ChildRole, type Driver } from '../driver.js';
import type { NodeOptions, OpenPolicy } from '../graph-api.js';
import type { BlockGraph } from '../graph.js';
import { parseFilename } from './filename.js';
import { nodeFlags, rootContext, type OpenInheritance } from './make-node.js';
import { filenameOf } from './node-filename.js';
import { openNamed, openNode } from './open.js';
import { protocolOf } from './protocol-of.js';
import { optionsOfName } from './reference.js';

type Options = Readonly<Record<string, unknown>>;

export interface NamedRequest {
  readonly name: string;
  /** Without a `driver` its format is found. */
  readonly options: Options;
  readonly policy: OpenPolicy;
}

export async function openByName(
  graph: BlockGraph,
  { name, options, policy }: NamedRequest,
): Promise<BlockNode> {
  const { driver: format, ...rest } = options;
  const own = name.startsWith('json:') ? parseFilename(name) : null;
  const given = own?.kind === 'options' ? own.options : null;
  const flags = nodeFlags(rest, rootContext(policy));
  const { direct, 'no-flush': noFlush } = flags.cache;
  const inherited: OpenInheritance = rootContext({ ...policy, direct, noFlush });
  const named = format ?? given?.['driver'];
  if (typeof named !== 'string') {
    const file = given === null ? { file: await fileOf(graph, name) } : given;
    if (file['file'] === undefined) {
      throw new BlockError('invalid-option', 'Must specify either driver or file');
    }
    const request = { options: { ...file, ...rest }, format: null };
    const node = await openNamed(graph, request, inherited);
    node.options = unbacked(node.driver, node.options, policy);
    node.filename = filenameOf(node);
    return node;
  }
  const driver = await graph.registry.load(named);
  const below = given ?? (await belowName(graph, driver, name));
  if (driver.children['file']?.required === true && below['file'] === undefined) {
    throw new BlockError('invalid-option', 'A block device must be specified for "file"');
  }
  const complete: NodeOptions = { ...below, ...rest, driver: named };
  requireName(complete);
  return openNode(graph, await completed(graph, unbacked(driver, complete, policy)), inherited);
}

/** A header that names a backing file is overruled, which the node's own name tells. */
function unbacked<T extends Options>(driver: Driver, options: T, policy: OpenPolicy): T {
  if (policy.noBacking !== true) return options;
  const roles = Object.entries(driver.children);
  const cow = roles.find(([, { role }]) => (role & ChildRole.cow) !== 0);
  return cow === undefined ? options : { ...options, [cow[0]]: null };
}

/** What the name says to a driver: the name itself, if it has no file below. */
async function belowName(graph: BlockGraph, driver: Driver, name: string): Promise<Options> {
  const { kind } = driver;
  if (driver.name === 'null-co' || driver.name === 'null-aio') {
    const only = `${driver.name}://`;
    if (name === only) return {};
    const text = `The only allowed filename for this driver is '${only}'`;
    throw new BlockError('invalid-option', text);
  }
  if (kind === 'protocol') return { filename: name.replace(/^file:/, '') };
  const file = await fileOf(graph, name);
  // A name such as `blkdebug::PATH` says all of it.
  return file.driver === driver.name ? file : { file };
}

/** The options of the file that a name stands for. */
async function fileOf(graph: BlockGraph, name: string): Promise<NodeOptions> {
  const options = await optionsOfName(graph, name);
  requireName(options);
  return (options['file'] ?? options) as NodeOptions;
}

/** Host files have one. */
function requireName({ driver, filename }: Options): void {
  if (driver !== 'file' || (typeof filename === 'string' && filename !== '')) return;
  throw new BlockError('invalid-option', "The 'file' block driver requires a file name");
}

/** Without a driver a file name is that of a host file. */
async function completed(graph: BlockGraph, options: NodeOptions): Promise<NodeOptions> {
  const { file } = options as Options;
  if (typeof file !== 'object' || file === null) return options;
  const { filename, driver = await protocolOf(graph.host, filename) } = file as Options;
  return { ...options, file: { ...file, driver } };
}
