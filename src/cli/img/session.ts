// SPDX-License-Identifier: Apache-2.0
// One run of a verb: a host, a graph of its own and the drivers, and opening images in the words
// of the command line. Everything opened is closed when the run ends, whichever way.

import { BlockError, escapeControls, Permission, systemClock } from '../../base/index.js';
import { corruptionText, createGraph, createRegistry } from '../../block/index.js';
import type { Backend, DriverRegistry, Graph, Node, OpenPolicy } from '../../block/index.js';
import { checkedDrivers, DRIVER_LOADERS, ObjectRegistry } from '../../engine/index.js';
import { openDefaultHost } from '../../host/index.js';
import type { Host } from '../../host/index.js';
import { CliError } from '../program.js';
import type { Program } from '../program.js';
import { makeObjects } from './objects.js';

export interface Session {
  readonly program: Program;
  readonly host: Host;
  readonly graph: Graph;
  readonly registry: DriverRegistry;
  /** Users of images that let go when the run ends, last come first gone. */
  readonly users: Backend[];
  /** A line to people that is no complaint of the program's. */
  warn(text: string): void;
}

/** What an image on the command line is: a file name, or options with --image-opts. */
export interface ImageName {
  readonly text: string;
  readonly format: string | null;
  readonly imageOptions: boolean;
}

export async function withSession(
  program: Program,
  run: (session: Session) => Promise<number>,
): Promise<number> {
  const warnLine = (line: string): void => program.err(`${program.name}: ${line}\n`);
  const host = program.host ?? openDefaultHost({ warn: warnLine });
  const registry = createRegistry({
    drivers: checkedDrivers(DRIVER_LOADERS),
    probed: ['qcow2', 'luks'],
  });
  const graph: Graph = createGraph({
    host,
    registry,
    clock: systemClock,
    random: host.random,
    throttleGroup: (name) => objects.throttleGroup(name),
    secret: (id) => objects.secret(id),
    // The program's name is not put in front, whoever is asked.
    onCorruption: (_node, report) => program.err(`${corruptionText(report)}\n`),
    onWarning: (text) => program.err(`${program.name}: warning: ${text}\n`),
    onFinding: (line) => program.err(`${escapeControls(line)}\n`),
  });
  const objects = new ObjectRegistry(systemClock, () => graph);
  const users: Backend[] = [];
  const closeAll = async (): Promise<void> => {
    try {
      for (const user of users.splice(0).reverse()) await user.detach();
      await graph.closeAll();
    } finally {
      await objects.close();
    }
  };
  let finished = false;
  try {
    await makeObjects(program, objects);
    const warn = (text: string): void => program.err(text);
    const status = await run({ program, host, graph, registry, users, warn });
    finished = true;
    await closeAll();
    return status;
  } finally {
    // After a failure the images are let go of, and the first failure is the one to report.
    if (!finished) await closeAll().catch(() => undefined);
  }
}

export interface OpenRequest {
  readonly image: ImageName;
  readonly readOnly: boolean;
  readonly policy: OpenPolicy;
  /** Exit status when it cannot be opened; 1 unless given. */
  readonly failureStatus?: number;
}

export async function openImage(session: Session, request: OpenRequest): Promise<Node> {
  const node = await openNamed(session, request);
  if (node.probedRaw && !node.readOnly) {
    const name = escapeControls(node.primary?.filename ?? node.filename);
    session.warn(
      `WARNING: Image format was not specified for '${name}' and probing guessed raw.\n` +
        '         Automatically detecting the format is dangerous for raw images, write ' +
        'operations on block 0 will be restricted.\n' +
        "         Specify the 'raw' format explicitly to remove the restrictions.\n",
    );
  }
  return node;
}

async function openNamed(session: Session, request: OpenRequest): Promise<Node> {
  const { image, readOnly, policy } = request;
  let prefix = `Could not open '${image.text}': `;
  try {
    if (image.text === '' && !image.imageOptions) {
      throw new BlockError('invalid-option', "The 'file' block driver requires a file name");
    }
    if (!image.imageOptions) {
      // The graph puts the same words in front.
      prefix = '';
      return await session.graph.openImage(image.text, image.format, readOnly, policy);
    }
    const { optionTree } = await import('./options/list.js');
    const { openByOptions } = await import('./options/open.js');
    const tree = optionTree(image.text, session.program, 'file');
    return await openByOptions(session, { tree, readOnly, policy });
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
    const status = request.failureStatus ?? 1;
    throw new CliError(`${prefix}${error.message}`, status, error);
  }
}

const REFUSALS: readonly string[] = ['locked', 'permission'];

/** The command line as a user of an image that it opened; what refuses it does so as opening. */
export async function attachUser(
  session: Session,
  user: {
    readonly node: Node;
    readonly name: string;
    readonly taken: number;
    /** All of them unless given. */
    readonly shared?: number;
  },
): Promise<Backend> {
  const { node, name, taken, shared = Permission.all } = user;
  try {
    const user = await session.graph.attach(node, 'img', { taken, shared });
    session.users.push(user);
    return user;
  } catch (error) {
    const isRefused = error instanceof BlockError && REFUSALS.includes(error.kind);
    if (!isRefused) throw error;
    throw new CliError(`Could not open '${name}': ${error.message}`, 1, error);
  }
}

/** Flags of a cache mode; null when there is none of that name. */
export function cachePolicy(mode: string): OpenPolicy | null {
  switch (mode) {
    case 'none':
    case 'off':
      return { direct: true };
    case 'directsync':
      return { direct: true, writeThrough: true };
    case 'writeback':
      return {};
    case 'unsafe':
      return { noFlush: true };
    case 'writethrough':
      return { writeThrough: true };
    default:
      return null;
  }
}

export function sourceCache(mode: string, failureStatus = 1): OpenPolicy {
  const policy = cachePolicy(mode);
  if (policy === null) throw new CliError(`Invalid source cache option: ${mode}`, failureStatus);
  return policy;
}
