// SPDX-License-Identifier: Apache-2.0
// External snapshots and backing links of images in use: blockdev-snapshot, -snapshot-sync and
// change-backing-file.
//
// Order of a snapshot: the node is flushed, the overlay is made and opened, then the graph changes
// in one step. What fails before that leaves the graph as it was; a file that was made stays.

import { BlockError, errnoText, toBlockError } from '../base/index.js';
import { parseFilename, protocolOf, requireOperation } from '../block/index.js';
import type { Driver, Node, NodeOptions, PreparedOverlay } from '../block/index.js';
import { backingOf, nodesOfView, skipFilters } from '../block/copy/index.js';
import type { Host } from '../host/index.js';
import { createImageFile, hasBacking } from '../jobs/index.js';
import type { Engine } from './engine.js';

export interface SnapshotFile {
  readonly file: string;
  /** Node name of the overlay. */
  readonly name: string | undefined;
  readonly format: string;
  /** The file is there and is taken as it is. */
  readonly existing: boolean;
}

/** A snapshot in place; one of the two follows, once. */
export interface PreparedSnapshot {
  commit(): Promise<void>;
  /** Everything is as before; files that were made stay. */
  abort(): Promise<void>;
}

/** `blockdev-snapshot`: an overlay that is open already. */
export async function prepareSnapshotOnto(
  engine: Engine,
  node: Node,
  overlay: string,
): Promise<PreparedSnapshot> {
  await prepareNode(node);
  const target = engine.jobs.node(overlay);
  const change = await engine.graph.prepareOverlay(node, target);
  return { commit: () => change.commit(), abort: () => change.undo() };
}

/** `blockdev-snapshot-sync`: an overlay from a file. */
export async function prepareSnapshotInto(
  engine: Engine,
  node: Node,
  request: SnapshotFile,
): Promise<PreparedSnapshot> {
  const { graph } = engine;
  await prepareNode(node);
  const overlay = await openOverlay(engine, node, request);
  let change: PreparedOverlay;
  try {
    change = await graph.prepareOverlay(node, overlay);
  } catch (error) {
    await graph.close(overlay);
    throw error;
  }
  // Once the snapshot stands or is undone the overlay lives by its users alone.
  const end = async (last: () => Promise<void>): Promise<void> => {
    try {
      await last();
    } finally {
      await graph.close(overlay);
    }
  };
  return { commit: () => end(() => change.commit()), abort: () => end(() => change.undo()) };
}

async function openOverlay(engine: Engine, node: Node, request: SnapshotFile): Promise<Node> {
  const { graph } = engine;
  if (request.name === undefined) {
    throw new BlockError('invalid-option', 'New overlay node-name missing');
  }
  if (graph.find(request.name) !== null) {
    throw new BlockError('exists', 'New overlay node-name already in use');
  }
  const driver = await formatDriver(engine, request);
  if (!request.existing) {
    await createImageFile(engine.jobs, {
      driver,
      filename: request.file,
      size: node.length,
      backing: node,
      backingName: 'as-opened',
    });
  }
  return await graph.open({
    ...(await overlayOptions(graph.host, driver, request.file)),
    ...accessOf(node),
    'node-name': request.name,
  });
}

/** How a node is open, which is how its overlay is opened. */
function accessOf(node: Node): Readonly<Record<string, unknown>> {
  const given = ['cache', 'auto-read-only'].map((name) => [name, node.options[name]] as const);
  const access = Object.fromEntries(given.filter(([, value]) => value !== undefined));
  return { ...access, 'read-only': node.readOnly };
}

async function prepareNode(node: Node): Promise<void> {
  requireOperation(node, 'external-snapshot');
  if (node.readOnly) return;
  try {
    await node.flush();
  } catch (error) {
    throw new BlockError('io', 'An IO error has occurred', { node: node.name, cause: error });
  }
}

async function formatDriver(engine: Engine, file: SnapshotFile): Promise<Driver> {
  const { format, existing } = file;
  try {
    return await engine.jobs.driver(format);
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
    const what = existing ? 'driver' : 'file format';
    throw new BlockError('invalid-option', `Unknown ${what} '${format}'`, { cause: error });
  }
}

/** The overlay without its backing file, by the name of its file or by `json:` options. */
async function overlayOptions(host: Host, driver: Driver, name: string): Promise<NodeOptions> {
  const format = { driver: driver.name };
  const none = hasBacking(driver) ? { backing: null } : {};
  const parsed = parseFilename(name);
  const below =
    parsed.kind === 'path'
      ? { driver: await protocolOf(host, parsed.path), filename: parsed.path }
      : parsed.options;
  if (name.startsWith('json:')) {
    if (driver.kind === 'protocol' || below['file'] !== undefined) {
      return { ...none, ...below, ...format };
    }
    throw new BlockError('invalid-option', 'A block device must be specified for "file"');
  }
  const protocol = (below['file'] ?? below) as NodeOptions;
  if (protocol.driver === driver.name) return protocol;
  return { ...none, ...format, file: protocol };
}

export interface BackingChange {
  readonly device: string;
  readonly image: string;
  readonly backingFile: string;
}

/** `change-backing-file`: the header of one image in the chain of `device`. */
export async function changeBackingFile(engine: Engine, request: BackingChange): Promise<void> {
  const { graph, jobs } = engine;
  const top = jobs.node(request.device);
  for (const { parent } of top.parents) {
    if (parent.node === null && parent.job === undefined) continue;
    throw new BlockError('invalid-state', 'Need a root block node');
  }
  const image = jobs.node(request.image, 'node-name');
  const below = backingOf(image);
  if (below === null && image.filtered === null) {
    throw new BlockError(
      'invalid-state',
      'not allowing backing file change on an image without a backing file',
    );
  }
  if (![...nodesOfView(top)].includes(image)) {
    throw new BlockError(
      'invalid-option',
      `'${request.device}' and image file are not in the same chain`,
    );
  }
  requireOperation(top, 'change');
  const formatOf = engine.habits.ownBackingFormat ? image : skipFilters(below ?? image);
  const wasReadOnly = image.readOnly;
  if (wasReadOnly) await graph.setReadOnly(image, false);
  try {
    const section = await graph.drain([image]);
    try {
      const { backingFile: file } = request;
      await image.changeBacking(file === '' ? null : { file, format: formatOf.driver.name });
    } finally {
      section.end();
    }
  } catch (error) {
    const failure = toBlockError(error);
    const text = `Could not change backing file to '${request.backingFile}'`;
    throw new BlockError(failure.kind, `${text}: ${errnoText(failure.errno)}`, { cause: failure });
  } finally {
    // The link stands, whatever else becomes of the node.
    if (wasReadOnly) await graph.setReadOnly(image, true).catch(() => undefined);
  }
}
