// SPDX-License-Identifier: Apache-2.0
// Opening, creating and describing files of the operating system.
//
// A path is looked at before it is opened, because opening alone may block (a FIFO) or act (a
// tape); it is opened without blocking and looked at again, because it may have been replaced.

import {
  type BigIntStats,
  closeSync,
  constants,
  fstatSync,
  openSync,
  readFileSync,
  readSync,
  statSync,
  unlinkSync,
} from 'node:fs';
import { dirname } from 'node:path';

import { BlockError, type Clock, errnoText, kindOfErrno, type Random } from '../base/index.js';
import { bufferPool, SLAB_ALIGNMENT } from './buffer-pool.js';
import type { DescriptorFileOptions } from './descriptor-file.js';
import type { FileStat, Host, HostFile, OpenFileOptions } from './host.js';
import { processLocks } from './locks/lock-table.js';
import { readWhole } from './read-whole.js';

/** The smallest unit of O_DIRECT, in bytes. */
const SECTOR_BYTES = 512;
const NEW_FILE_MODE = 0o644;

interface OpenedDescriptor {
  readonly path: string;
  readonly descriptor: number;
  readonly options: OpenFileOptions;
  /** Folder of a file that was just made: its name is durable only when that is synced too. */
  readonly folder?: string | undefined;
}

export abstract class DescriptorHost implements Host {
  abstract readonly name: Host['name'];
  readonly clock: Clock;
  readonly random: Random;

  constructor(options: { readonly clock: Clock; readonly random: Random }) {
    this.clock = options.clock;
    this.random = options.random;
  }

  protected abstract makeFile(options: DescriptorFileOptions): HostFile;

  readWhole(path: string, most: number): Promise<Uint8Array> {
    return readWhole(path, most);
  }

  fillSecret(buffer: Uint8Array): void {
    // Not imported above: it takes 4 ms to load, which few runs need.
    process.getBuiltinModule('node:crypto').randomFillSync(buffer);
  }

  async openFile(path: string, options: OpenFileOptions): Promise<HostFile> {
    return this.openFileNow(path, options);
  }

  openFileNow(path: string, options: OpenFileOptions): HostFile {
    const refused = refusalOf(lookAt(path, 'open'), path, options.readOnly);
    if (refused !== null) throw refused;
    const access = options.readOnly ? constants.O_RDONLY : constants.O_RDWR;
    const direct = options.direct === true ? constants.O_DIRECT : 0;
    const descriptor = openDescriptor(path, access | direct | constants.O_NONBLOCK, 'open');
    return this.#adopt({ path, descriptor, options });
  }

  async createFile(path: string): Promise<HostFile> {
    const found = statOrNull(path);
    if (found !== null && found.isDirectory()) throw hostError('create', path, 'EISDIR');
    const refused = found === null ? null : refusalOf(found, path, false);
    if (refused !== null) throw refused;
    const flags = constants.O_RDWR | constants.O_CREAT | constants.O_NONBLOCK;
    const descriptor = openDescriptor(path, flags, 'create');
    const folder = found === null ? dirname(path) : undefined;
    return this.#adopt({ path, descriptor, options: { readOnly: false }, folder });
  }

  async stat(path: string): Promise<FileStat | null> {
    const found = statOrNull(path);
    if (found === null) return null;
    return {
      identity: { device: String(found.dev), inode: String(found.ino) },
      kind: kindOf(found),
      size: found.isBlockDevice() ? deviceSize(found) : Number(found.size),
      allocatedBytes: Number(found.blocks) * SECTOR_BYTES,
    };
  }

  async removeFile(path: string): Promise<void> {
    try {
      unlinkSync(path);
    } catch (error) {
      throw hostError('remove', path, errnoOf(error), error);
    }
  }

  #adopt({ path, descriptor, options, folder }: OpenedDescriptor): HostFile {
    try {
      const found = fstatSync(descriptor, { bigint: true });
      const refused = refusalOf(found, path, options.readOnly);
      if (refused !== null) throw refused;
      const direct = options.direct ?? false;
      return this.makeFile({
        path,
        descriptor,
        identity: { device: String(found.dev), inode: String(found.ino) },
        kind: found.isBlockDevice() ? 'block-device' : 'file',
        readOnly: options.readOnly,
        noFlush: options.noFlush ?? false,
        direct,
        alignment: direct ? directAlignment(descriptor) : 1,
        deviceSize: found.isBlockDevice() ? deviceSize(found) : null,
        locks: processLocks,
        clock: this.clock,
        ...(folder === undefined ? {} : { newIn: folder }),
      });
    } catch (error) {
      closeSync(descriptor);
      throw error;
    }
  }
}

/** A failure to open, create or remove, worded with the path and the system's reason. */
function hostError(verb: string, path: string, errno: string, cause?: unknown): BlockError {
  return new BlockError(kindOfErrno(errno), `Could not ${verb} '${path}': ${errnoText(errno)}`, {
    path,
    errno,
    ...(cause === undefined ? {} : { cause }),
  });
}

function errnoOf(error: unknown): string {
  const { code } = error as NodeJS.ErrnoException;
  return code !== undefined && /^E[A-Z0-9]+$/.test(code) ? code : 'EINVAL';
}

function lookAt(path: string, verb: string): BigIntStats {
  try {
    return statSync(path, { bigint: true });
  } catch (error) {
    throw hostError(verb, path, errnoOf(error), error);
  }
}

function statOrNull(path: string): BigIntStats | null {
  try {
    return statSync(path, { bigint: true });
  } catch (error) {
    const errno = errnoOf(error);
    if (errno === 'ENOENT' || errno === 'ENOTDIR') return null;
    throw hostError('open', path, errno, error);
  }
}

function openDescriptor(path: string, flags: number, verb: string): number {
  try {
    return openSync(path, flags, NEW_FILE_MODE);
  } catch (error) {
    const errno = errnoOf(error);
    if (errno === 'EINVAL' && (flags & constants.O_DIRECT) !== 0) {
      const message = `Could not ${verb} '${path}': filesystem does not support O_DIRECT`;
      throw new BlockError('invalid-option', message, { path, errno, cause: error });
    }
    throw hostError(verb, path, errno, error);
  }
}

/** The refusal of anything but a regular file or a block device, or null. */
function refusalOf(found: BigIntStats, path: string, readOnly: boolean): BlockError | null {
  if (found.isFile() || found.isBlockDevice()) return null;
  if (found.isDirectory() && !readOnly) return hostError('open', path, 'EISDIR');
  return new BlockError('invalid-option', `'file' driver requires '${path}' to be a regular file`, {
    path,
  });
}

function kindOf(found: BigIntStats): FileStat['kind'] {
  if (found.isFile()) return 'file';
  if (found.isBlockDevice()) return 'block-device';
  return found.isDirectory() ? 'directory' : 'other';
}

/** Capacity in bytes; the kernel gives it in sectors of 512 whatever the device's own are. */
function deviceSize(found: BigIntStats): number {
  const { rdev } = found;
  const major = ((rdev >> 8n) & 0xfffn) | ((rdev >> 32n) & ~0xfffn);
  const minor = (rdev & 0xffn) | ((rdev >> 12n) & ~0xffn);
  const sectors = readFileSync(`/sys/dev/block/${major}:${minor}/size`, 'latin1');
  return Number.parseInt(sectors, 10) * SECTOR_BYTES;
}

/** The unit that this file's O_DIRECT transfers need: found by reading one sector. */
function directAlignment(descriptor: number): number {
  const slab = bufferPool.take();
  try {
    return readSync(descriptor, slab, 0, SECTOR_BYTES, 0) > 0 ? SECTOR_BYTES : SLAB_ALIGNMENT;
  } catch {
    return SLAB_ALIGNMENT;
  } finally {
    bufferPool.give(slab);
  }
}
