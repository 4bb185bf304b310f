// SPDX-License-Identifier: Apache-2.0
// Makes an image file for `img create` and `img convert`.
//
// All options are checked by the driver before the file is touched: the file is made (and an old
// one cut to nothing, after its locks were tested) only when the format asks for its `file`. When
// making the image fails, a file that was not there before is removed again.

import { BlockError, Permission } from '../../../base/index.js';
import { creationPath, protocolOf } from '../../../block/index.js';
import type { Backend, CreateContext, Driver, Node } from '../../../block/index.js';
import { driverOptions } from '../../../drivers/options-catalog.js';
import { CliError } from '../../program.js';
import { withEncryption } from './encryption.js';
import { luksMembers } from './luks.js';
import { OptionMistake, PREALLOCATIONS } from './options.js';
import type { CreateMembers, OptionValues } from './options.js';
import type { Session } from '../session.js';

const SECTOR = 512;

/** Formats that a header may name; those without a driver here can be opened by others. */
export const BACKING_FORMATS: ReadonlySet<string> = new Set([
  ...Object.keys(driverOptions),
  'bochs', 'cloop', 'dmg', 'host_device', 'luks', 'nbd', 'null-aio', 'parallels', 'qcow',
  'qed', 'throttle', 'vdi', 'vhdx', 'vmdk', 'vpc',
]);

export interface CreateRequest {
  /** As it was given, perhaps with `file:` in front. */
  readonly path: string;
  readonly values: OptionValues;
  /** Bytes. */
  readonly size: number;
}

export async function createImage(session: Session, request: CreateRequest): Promise<void> {
  const { values } = request;
  const files = new NewFiles(session);
  const path = creationPath(request.path);
  // What is encrypted ends with its file, wherever that is; what is left of a sector is not read.
  const isLuks = values.format.name === 'luks';
  const size = isLuks ? request.size : Math.ceil(request.size / SECTOR) * SECTOR;
  try {
    const creation = await creationOf(session, values, { path, size });
    if (creation === null) await files.make(path, { size, ...rawMembers(values) });
    else {
      const { members, driver, dataFile } = creation;
      const context: CreateContext = {
        host: session.host,
        secret: session.graph.secret,
        node: (reference) => files.open(typeof reference === 'string' ? path : dataFile),
        foresee: (reference) => files.foresee(typeof reference === 'string' ? path : dataFile),
      };
      await driver.create?.(context, members);
    }
  } catch (error) {
    await files.remove(error);
    throw error;
  } finally {
    await files.letGo();
  }
}

/** The files of an image being made: the image itself and perhaps its data file. */
class NewFiles {
  readonly #session: Session;
  readonly #users: Backend[] = [];
  /** Those that were not there before. */
  readonly #made: string[] = [];
  /** The last of them, while that is being made or opened. */
  #newest: string | null = null;

  constructor(session: Session) {
    this.#session = session;
  }

  async make(path: string, members: Record<string, unknown>): Promise<void> {
    const { host, graph, registry } = this.#session;
    const driver = await registry.load('file');
    await this.#note(path);
    const context = { host, node: noNode, secret: graph.secret };
    await driver.create?.(context, { filename: path, ...members });
  }

  /** Tries what make() begins with; a file that is there keeps what it holds. */
  async foresee(path: string): Promise<void> {
    const { host } = this.#session;
    await this.#note(path);
    const file = await host.createFile(path);
    try {
      file.lock({ taken: Permission.write | Permission.resize, unshared: Permission.resize });
    } finally {
      await file.close();
    }
  }

  async open(path: string): Promise<Node> {
    const { host, graph } = this.#session;
    await this.make(path, { size: 0 });
    const node = await graph.open({ driver: await protocolOf(host, path), filename: path });
    const { consistentRead, write, resize, all } = Permission;
    const permissions = { taken: consistentRead | write | resize, shared: all & ~resize };
    this.#users.push(await graph.attach(node, 'create', permissions));
    await graph.close(node);
    return node;
  }

  async #note(path: string): Promise<void> {
    const existed = (await this.#session.host.stat(path).catch(() => null)) !== null;
    const isMade = this.#made.includes(path);
    this.#newest = existed && !isMade ? null : path;
    if (!existed && !isMade) this.#made.push(path);
  }

  /** After a failure; a file that somebody else has locked is that one's. */
  async remove(error: unknown): Promise<void> {
    await this.letGo().catch(() => undefined);
    const isLocked = error instanceof BlockError && error.kind === 'locked';
    for (const path of this.#made) {
      if (isLocked && path === this.#newest) continue;
      await this.#session.host.removeFile(path).catch(() => undefined);
    }
  }

  async letGo(): Promise<void> {
    for (const user of this.#users.splice(0)) await user.detach();
  }
}

function noNode(): Promise<never> {
  return Promise.reject(new BlockError('invalid-option', 'a file is made of no other node'));
}

/** What a format makes in a file of its own. */
interface Creation {
  readonly driver: Driver;
  /** Checked. */
  readonly members: Readonly<Record<string, unknown>>;
  /** Path of the other file, where `members` name one. */
  readonly dataFile: string;
}

/** Null: the file is the image. */
async function creationOf(
  session: Session,
  values: OptionValues,
  place: { readonly path: string; readonly size: number },
): Promise<Creation | null> {
  const { path: file, size } = place;
  const { name } = values.format;
  if (name === 'qcow2') {
    const given = qcow2Members(values);
    const members = withEncryption(given);
    const driver = await session.registry.load(name);
    const dataFile = given['data-file'];
    const own = { ...members, file, size };
    if (dataFile === undefined) return { driver, members: own, dataFile: '' };
    const data = { 'data-file': { filename: dataFile } };
    const path = creationPath(String(dataFile));
    return { driver, members: { ...own, ...data }, dataFile: path };
  }
  if (name !== 'luks') return null;
  const driver = await session.registry.load(name);
  return { driver, members: luksMembers(values.members(), { file, size }), dataFile: '' };
}

function qcow2Members(values: OptionValues): CreateMembers {
  const members = values.members();
  const mode = members['preallocation'];
  if (mode !== undefined && !PREALLOCATIONS.includes(String(mode))) {
    throw unknownValue('preallocation', mode);
  }
  const backing = members['backing-fmt'];
  if (backing !== undefined && !BACKING_FORMATS.has(String(backing))) {
    throw unknownValue('backing-fmt', backing);
  }
  const compression = members['compression-type'];
  if (compression !== undefined && compression !== 'zlib' && compression !== 'zstd') {
    throw unknownValue('compression-type', compression);
  }
  return members;
}

function unknownValue(name: string, value: string | number | boolean): BlockError {
  const text = `Parameter '${name}' does not accept value '${value}'`;
  return new BlockError('invalid-option', text);
}

function rawMembers(values: OptionValues): CreateMembers {
  const members = values.members();
  const mode = members['preallocation'];
  if (mode === 'metadata') {
    throw new BlockError('invalid-option', 'Unsupported preallocation mode: metadata');
  }
  if (mode !== undefined && !['off', 'falloc', 'full'].includes(String(mode))) {
    throw new BlockError('invalid-option', `invalid parameter value: ${String(mode)}`);
  }
  return members;
}

/** A CliError with `prefix: ` before what the driver said. */
export function creationError(prefix: string, error: unknown): unknown {
  if (!(error instanceof BlockError)) return error;
  const because = error instanceof OptionMistake ? error.lines : error;
  return new CliError(`${prefix}: ${error.message}`, 1, because);
}
