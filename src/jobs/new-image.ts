// SPDX-License-Identifier: Apache-2.0
// Image files that commands make: overlays of snapshots, and the targets of the drive-* commands,
// which a job opens for itself.
//
// A file is made in two steps: it is created empty by its protocol, then the format writes its
// header through a node of its own. What fails leaves the file, and no node.

import { dirname, resolve } from 'node:path';

import { BlockError, Permission } from '../base/index.js';
import { ChildRole, creationPath, protocolOf, resolveBackingName } from '../block/index.js';
import { UNNAMED_USER } from '../block/index.js';
import type { Driver, Node, NodeOptions } from '../block/index.js';
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
  const { host } = registry.graph;
  const filename = creationPath(image.filename);
  requireCreatable(image, filename);
  if (image.backingName === 'checked') await requireBackingFile(registry, image, filename);
  const bare = isBare(image.driver);
  const noNode = (): Promise<Node> => Promise.reject(new BlockError('invalid-state', 'no node'));
  const fileDriver = await registry.driver('file');
  await fileDriver.create?.({ host, node: noNode }, { filename, size: bare ? image.size : 0 });
  if (!bare) await writeHeader(registry, image, filename);
}

function requireCreatable({ driver, backing }: NewImage, path: string): void {
  const { name } = driver;
  if (name !== 'raw' && driver.create === undefined) {
    const text = `Format driver '${name}' does not support image creation`;
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
        { host: graph.host, node: () => Promise.resolve(backend.node) },
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

/** Opens an image read-write. */
export async function openImageFile(registry: JobRegistry, image: ImageFile): Promise<Node> {
  const { graph } = registry;
  const filename = creationPath(image.filename);
  const format = image.format ?? (await probeFormat(registry, filename));
  const driver = await imageFormat(registry, format);
  const cache = image.like.options['cache'];
  const protocol = await protocolOf(graph.host, filename);
  const options: NodeOptions = {
    driver: format,
    ...(driver.kind === 'protocol' ? { filename } : { file: { driver: protocol, filename } }),
    discard: 'unmap',
    ...(image.name === null ? {} : { 'node-name': image.name }),
    ...(hasBacking(driver) && image.backing !== 'as-header-says' ? { backing: null } : {}),
    ...(image.detectZeroes === undefined ? {} : { 'detect-zeroes': image.detectZeroes }),
    ...(cache === undefined ? {} : { cache }),
  };
  return graph.open(options);
}

async function probeFormat(registry: JobRegistry, filename: string): Promise<string> {
  const { graph } = registry;
  let probed: Node;
  try {
    probed = await graph.openImage(filename, null, true, { noBacking: true });
  } catch (error) {
    // Said once is enough: the file's own error names it, too.
    const cause = error instanceof Error ? error.cause : null;
    throw cause instanceof BlockError ? cause : error;
  }
  try {
    return probed.driver.name;
  } finally {
    await graph.close(probed);
  }
}
