// SPDX-License-Identifier: Apache-2.0
// Image files that commands make: overlays of snapshots, and the targets of the drive-* commands,
// which a job opens for itself.
//
// A file is made in two steps: it is created empty by its protocol, then the format writes its
// header through a node of its own. What fails leaves the file, and no node.

import { dirname, resolve } from 'node:path';

import { BlockError, Permission, toBlockError } from '../base/index.js';
import { ChildRole, creationPlace, protocolOf, resolveBackingName } from '../block/index.js';
import { UNNAMED_USER } from '../block/index.js';
import type { CreationPlace, Driver, Node } from '../block/index.js';
import { skipFilters } from '../block/copy/index.js';
import type { JobRegistry } from './registry.js';

export interface NewImage {
  readonly driver: Driver;
  readonly filename: string;
  /** Bytes. */
  readonly size: number;
  readonly backing: Node | null;
  /**
   * What the header names it by: a name that holds where the image is unless told otherwise; as
   * it was opened, a relative name counts from where the image is. `checked` is the same, and
   * nothing is made unless what that names can be opened.
   */
  readonly backingName?: 'as-opened' | 'checked';
}

export interface ImageFile {
  readonly filename: string;
  /** Null: told by what the file begins with. */
  readonly format: string | null;
  readonly name: string | null;
  /** Its cache mode is taken over. */
  readonly like: Node;
  /** Without its backing file unless told otherwise. */
  readonly backing?: 'none' | 'as-header-says';
  readonly detectZeroes?: 'unmap';
}

/** Drivers that no user can name. */
const FILTERS_OF_JOBS: ReadonlySet<string> = new Set(['mirror_top', 'commit_top']);

export async function imageFormat(registry: JobRegistry, name: string): Promise<Driver> {
  const unknown = `Unknown file format '${name}'`;
  if (FILTERS_OF_JOBS.has(name)) throw new BlockError('invalid-option', unknown);
  try {
    return await registry.driver(name);
  } catch (error) {
    if (!(error instanceof BlockError)) throw error;
    throw new BlockError('invalid-option', unknown, { cause: error });
  }
}

/** The file is the image: there is no header. */
function isBare(driver: Driver): boolean {
  return driver.name === 'raw' || driver.kind === 'protocol';
}

/** Whether its images can have a backing file. */
export function hasBacking(driver: Driver): boolean {
  return Object.values(driver.children).some(({ role }) => (role & ChildRole.cow) !== 0);
}

/** Makes an empty image, durable when this resolves; a file that is there is overwritten. */
export async function createImageFile(registry: JobRegistry, image: NewImage): Promise<void> {
  const { driver, filename } = image;
  const place = creationPlace(filename);
  requireCreatable(image, place);
  if (image.backingName === 'checked') await requireBackingFile(registry, image, place.path);
  const bare = isBare(driver);
  if (place.protocol === 'file') await createFile(registry, place.path, bare ? image.size : 0);
  else if (driver.kind === 'protocol') await createFile(registry, filename, image.size);
  else await requireOpenable(registry, place);
  if (!bare) await writeHeader(registry, image, place.path);
}

async function createFile(
  registry: JobRegistry,
  filename: string,
  size: number,
): Promise<void> {
  const { host } = registry.graph;
  const noNode = (): Promise<Node> => Promise.reject(new BlockError('invalid-state', 'no node'));
  const fileDriver = await registry.driver('file');
  const context = { host, node: noNode, secret: registry.graph.secret };
  await fileDriver.create?.(context, { filename, size });
}

/** A device is not made: it has to be there. */
async function requireOpenable({ graph }: JobRegistry, place: CreationPlace): Promise<void> {
  const { protocol, path } = place;
  try {
    await graph.close(await graph.open({ driver: protocol, filename: path }));
  } catch (error) {
    const { kind, message, context } = toBlockError(error);
    const text =
      `Protocol driver '${protocol}' does not support image creation, ` +
      `and opening the image failed: ${message}`;
    throw new BlockError(kind, text, { ...context, cause: error });
  }
}

/** Protocols of which there may be something to put a header into. */
const FOUND: ReadonlySet<string> = new Set(['host_device', 'nbd']);

function requireCreatable({ driver, backing }: NewImage, place: CreationPlace): void {
  const { name } = driver;
  const { protocol, path } = place;
  if (name !== 'raw' && driver.create === undefined) {
    const text = `Format driver '${name}' does not support image creation`;
    throw new BlockError('unsupported', text, { path });
  }
  if (protocol !== 'file' && !FOUND.has(protocol)) {
    const text = `Protocol driver '${protocol}' does not support image creation`;
    throw new BlockError('unsupported', text, { path });
  }
  if (backing !== null && !hasBacking(driver)) {
    const text = `Backing file not supported for file format '${name}'`;
    throw new BlockError('unsupported', text, { path });
  }
  if (backing?.filename !== path) return;
  const text = 'Error: Trying to create an image with the same filename as the backing file';
  throw new BlockError('invalid-option', text, { path });
}

async function requireBackingFile(
  { graph }: JobRegistry,
  { backing }: NewImage,
  path: string,
): Promise<void> {
  if (backing === null || backing.filename.startsWith('json:')) return;
  const filename = resolveBackingName(path, backing.filename);
  const file = { driver: await protocolOf(graph.host, filename), filename };
  // It is only looked at: whoever writes to it does not matter yet.
  const looking = { 'read-only': true, 'force-share': true };
  await graph.close(await graph.open({ driver: backing.driver.name, file, ...looking }));
}

async function writeHeader(
  { graph }: JobRegistry,
  image: NewImage,
  filename: string,
): Promise<void> {
  const { driver, size } = image;
  const file = await graph.open({ driver: await protocolOf(graph.host, filename), filename });
  try {
    const backend = await graph.attach(file, UNNAMED_USER, {
      taken: Permission.write | Permission.resize,
      shared: Permission.all,
    });
    try {
      await driver.create?.(
        { host: graph.host, node: () => Promise.resolve(backend.node), secret: graph.secret },
        { driver: driver.name, file: file.name, size, ...backingLink(image, filename) },
      );
    } finally {
      await backend.detach();
    }
  } finally {
    await graph.close(file);
  }
}

/** A name that means another file when read in the folder of the new image is made absolute. */
function backingLink(
  { backing, backingName }: NewImage,
  path: string,
): Readonly<Record<string, string>> {
  if (backing === null) return {};
  const { filename } = backing;
  if (backingName !== undefined) {
    return { 'backing-file': filename, 'backing-fmt': backing.driver.name };
  }
  const holds = filename.includes(':') || resolve(dirname(path), filename) === resolve(filename);
  return {
    'backing-file': holds ? filename : resolve(filename),
    'backing-fmt': skipFilters(backing).driver.name,
  };
}

/** Opens an image read-write, by whatever kind of name. */
export async function openImageFile({ graph }: JobRegistry, image: ImageFile): Promise<Node> {
  const { format, name, detectZeroes } = image;
  const cache = image.like.options['cache'];
  const options = {
    ...(format === null ? {} : { driver: format }),
    discard: 'unmap',
    ...(name === null ? {} : { 'node-name': name }),
    ...(detectZeroes === undefined ? {} : { 'detect-zeroes': detectZeroes }),
    ...(cache === undefined ? {} : { cache }),
  };
  return graph.openByName(image.filename, options, {
    noBacking: image.backing !== 'as-header-says',
  });
}
