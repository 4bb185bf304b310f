// SPDX-License-Identifier: Apache-2.0
// What the native and the portable host share: an open file behind a descriptor.
//
// Transfers up to IO_LIMITS.inlineBytes run inline on buffered files. A write that took longer
// than IO_LIMITS.slowWriteMs sends the file's writes to the thread pool for a while. Flushes,
// O_DIRECT transfers and whatever the subclass cannot do at once always go there, and hold the
// descriptor meanwhile. A direct transfer whose buffer is not aligned goes through a slab.

import {
  close,
  closeSync,
  fdatasync,
  fstatSync,
  ftruncate,
  openSync,
  read,
  write,
} from 'node:fs';

import {
  BlockError,
  type Clock,
  type Eventually,
  IO_LIMITS,
  settleFinally,
  toBlockError,
} from '../base/index.js';
import { bufferPool, isAlignedBuffer, SLAB_BYTES } from './buffer-pool.js';
import { FileBase, type FileBaseOptions } from './file-base.js';
import type { CreateFileOptions, HostExtent } from './host.js';

const FIRST_BLOCK = 4096;
const FIRST_SECTOR = 512;

export interface DescriptorFileOptions extends FileBaseOptions {
  readonly descriptor: number;
  readonly direct: boolean;
  /** Capacity of a block device in bytes; null for a regular file. */
  readonly deviceSize: number | null;
  readonly clock: Clock;
  /** Folder of a file that was just made; the first sync makes the name durable too. */
  readonly newIn?: string;
}

/** Given by readNow() when it would have to wait. */
export const NOT_NOW = -1;

/** Node refuses to transfer 2 GiB or more in one call. */
const CALL_BYTES = 2 ** 30;

export abstract class DescriptorFile extends FileBase {
  override readonly descriptor: number;
  protected readonly direct: boolean;
  readonly #deviceSize: number | null;
  readonly #clock: Clock;
  #newIn: string | null;
  #slowUntil = 0;
  /** Size at the last look; null after anything that may have changed it. */
  #knownSize: number | null = null;

  constructor(options: DescriptorFileOptions) {
    super(options);
    this.descriptor = options.descriptor;
    this.direct = options.direct;
    this.#deviceSize = options.deviceSize;
    this.#clock = options.clock;
    this.#newIn = options.newIn ?? null;
  }

  /** Reads inline: the bytes read, or NOT_NOW; throws a host error. */
  protected abstract readNow(buffer: Uint8Array, offset: number): number;
  /** Writes all of the buffer inline; throws a host error. */
  protected abstract writeNow(buffer: Uint8Array, offset: number): void;
  /** Reserves room without changing contents or size; false if the host cannot. */
  protected abstract reserve(offset: number, length: number): Promise<boolean>;

  size(): number {
    this.assertOpen();
    if (this.#deviceSize !== null) return this.#deviceSize;
    this.#knownSize ??= this.fileSize();
    return this.#knownSize;
  }

  allocatedBytes(): number {
    this.assertOpen();
    return fstatSync(this.descriptor).blocks * 512;
  }

  protected override noteWrite(): void {
    super.noteWrite();
    this.#knownSize = null;
  }

  read(buffer: Uint8Array, offset: number): Eventually<number> {
    this.assertOpen();
    this.assertAligned(offset, buffer.length);
    if (!this.direct && buffer.length <= IO_LIMITS.inlineBytes) {
      try {
        const count = this.readNow(buffer, offset);
        if (count !== NOT_NOW) return count;
      } catch (error) {
        throw this.failure(error, 'read', offset);
      }
    }
    return this.#readLater(buffer, offset);
  }

  write(buffer: Uint8Array, offset: number): Eventually<void> {
    this.assertWritable();
    this.assertAligned(offset, buffer.length);
    if (this.direct || buffer.length > IO_LIMITS.inlineBytes || this.#isSlow()) {
      return this.#writeLater(buffer, offset);
    }
    const begun = this.#clock.now();
    try {
      this.writeNow(buffer, offset);
    } catch (error) {
      throw this.failure(error, 'write', offset);
    } finally {
      const within = this.#knownSize !== null && offset + buffer.length <= this.#knownSize;
      if (within) super.noteWrite();
      else this.noteWrite();
    }
    const now = this.#clock.now();
    if (now - begun > IO_LIMITS.slowWriteMs) this.#slowUntil = now + IO_LIMITS.slowWritePenaltyMs;
    return undefined;
  }

  writeZeroes(offset: number, _length: number, _mayUnmap: boolean): Eventually<void> {
    this.assertWritable();
    throw new BlockError('unsupported', `'${this.path}' cannot write zeroes without data`, {
      path: this.path,
      offset,
    });
  }

  discard(_offset: number, _length: number): Eventually<void> {
    this.assertWritable();
  }

  extent(offset: number, length: number): HostExtent {
    const end = Math.min(this.size(), offset + length);
    return offset >= end
      ? { kind: 'hole', length: 0 }
      : { kind: 'data', length: end - offset };
  }

  truncate(
    size: number,
    preallocation: CreateFileOptions['preallocation'] = 'off',
  ): Eventually<void> {
    this.assertWritable();
    return this.inFlight(() => this.#resize(size, preallocation));
  }

  /** Runs an operation that may outlast the call: it holds the descriptor and counts as a write. */
  protected inFlight(start: () => Eventually<void>): Eventually<void> {
    this.hold();
    return settleFinally(start, () => {
      this.noteWrite();
      this.release();
    });
  }

  /** Present size of a regular file in bytes. */
  protected fileSize(): number {
    return fstatSync(this.descriptor).size;
  }

  protected failure(error: unknown, operation: string, offset?: number): BlockError {
    return toBlockError(error, {
      path: this.path,
      operation,
      ...(offset === undefined ? {} : { offset }),
    });
  }

  protected override async syncHost(): Promise<void> {
    await syncDescriptor(this.descriptor);
    if (this.#newIn === null) return;
    const folder = openFolder(this.#newIn);
    this.#newIn = null;
    if (folder === null) return;
    try {
      await syncDescriptor(folder);
    } finally {
      closeSync(folder);
    }
  }

  protected override closeHost(): Promise<void> {
    return new Promise((resolve, reject) => {
      close(this.descriptor, (error) => {
        if (error === null || error === undefined) resolve();
        else reject(this.failure(error, 'close'));
      });
    });
  }

  #isSlow(): boolean {
    if (this.#slowUntil === 0) return false;
    if (this.#clock.now() < this.#slowUntil) return true;
    this.#slowUntil = 0;
    return false;
  }

  async #readLater(buffer: Uint8Array, offset: number): Promise<number> {
    this.hold();
    try {
      if (!this.direct || isAlignedBuffer(buffer, this.alignment)) {
        return await readAll(this.descriptor, buffer, offset);
      }
      return await this.#readThroughSlab(buffer, offset);
    } catch (error) {
      throw this.failure(error, 'read', offset);
    } finally {
      this.release();
    }
  }

  async #writeLater(buffer: Uint8Array, offset: number): Promise<void> {
    this.hold();
    try {
      if (!this.direct || isAlignedBuffer(buffer, this.alignment)) {
        await writeAll(this.descriptor, buffer, offset);
      } else {
        await this.#writeThroughSlab(buffer, offset);
      }
    } catch (error) {
      throw this.failure(error, 'write', offset);
    } finally {
      this.noteWrite();
      this.release();
    }
  }

  async #readThroughSlab(buffer: Uint8Array, offset: number): Promise<number> {
    const slab = bufferPool.take();
    try {
      let done = 0;
      while (done < buffer.length) {
        const part = slab.subarray(0, Math.min(SLAB_BYTES, buffer.length - done));
        const count = await readAll(this.descriptor, part, offset + done);
        buffer.set(part.subarray(0, count), done);
        done += count;
        if (count < part.length) break;
      }
      return done;
    } finally {
      bufferPool.give(slab);
    }
  }

  async #writeThroughSlab(buffer: Uint8Array, offset: number): Promise<void> {
    const slab = bufferPool.take();
    try {
      for (let done = 0; done < buffer.length; done += SLAB_BYTES) {
        const part = slab.subarray(0, Math.min(SLAB_BYTES, buffer.length - done));
        part.set(buffer.subarray(done, done + part.length));
        await writeAll(this.descriptor, part, offset + done);
      }
    } finally {
      bufferPool.give(slab);
    }
  }

  async #resize(size: number, preallocation: CreateFileOptions['preallocation']): Promise<void> {
    const { path } = this;
    const old = this.size();
    if (this.#deviceSize !== null) {
      if (size <= old) return;
      throw new BlockError('invalid-option', 'Cannot grow device files', { path });
    }
    if (size < old && preallocation !== 'off') {
      const text = 'Cannot use preallocation for shrinking files';
      throw new BlockError('invalid-option', text, { path });
    }
    await this.#setSize(size);
    if (old === 0 && size > 0 && preallocation !== 'full') await this.#allocateFirst(size);
    if (size === old || preallocation === 'off') return;
    try {
      const reserved = preallocation === 'falloc' && (await this.reserve(old, size - old));
      if (!reserved) await this.#fill(old, size);
    } catch (error) {
      await this.#setSize(old);
      throw this.failure(error, 'truncate', old);
    }
  }

  /** A block of data at the start lets others find out the alignment of direct access; a hint. */
  async #allocateFirst(size: number): Promise<void> {
    const end = size < FIRST_BLOCK ? Math.min(size, FIRST_SECTOR) : FIRST_BLOCK;
    await this.#fill(0, end).catch(() => undefined);
  }

  #setSize(size: number): Promise<void> {
    return new Promise((resolve, reject) => {
      ftruncate(this.descriptor, size, (error) => {
        if (error === null) resolve();
        else reject(this.failure(error, 'truncate', size));
      });
    });
  }

  /** Writes zeroes over a range that has no contents yet. */
  async #fill(start: number, end: number): Promise<void> {
    const slab = bufferPool.take();
    try {
      // A direct file is written in whole units: the unit that holds the old end keeps its bytes,
      // and what the last unit puts past the new end is cut off again.
      const { alignment } = this;
      let at = start - (start % alignment);
      slab.fill(0);
      if (at < start) await readAll(this.descriptor, slab.subarray(0, alignment), at);
      while (at < end) {
        const wanted = Math.ceil((end - at) / alignment) * alignment;
        const part = slab.subarray(0, Math.min(SLAB_BYTES, wanted));
        await writeAll(this.descriptor, part, at);
        slab.fill(0, 0, alignment);
        at += part.length;
      }
      if (at > end) await this.#setSize(end);
    } finally {
      bufferPool.give(slab);
    }
  }
}

/** Reads until the buffer is full or the file ends; gives the bytes read. */
async function readAll(descriptor: number, buffer: Uint8Array, offset: number): Promise<number> {
  let done = 0;
  while (done < buffer.length) {
    const part = done === 0 ? buffer : buffer.subarray(done);
    const count = await readSome(descriptor, part, offset + done);
    if (count === 0) break;
    done += count;
  }
  return done;
}

async function writeAll(descriptor: number, buffer: Uint8Array, offset: number): Promise<void> {
  let done = 0;
  while (done < buffer.length) {
    done += await writeSome(descriptor, done === 0 ? buffer : buffer.subarray(done), offset + done);
  }
}

function readSome(descriptor: number, buffer: Uint8Array, offset: number): Promise<number> {
  return new Promise((resolve, reject) => {
    const length = Math.min(buffer.length, CALL_BYTES);
    read(descriptor, buffer, 0, length, offset, (error, count) =>
      error === null ? resolve(count) : reject(error),
    );
  });
}

function writeSome(descriptor: number, buffer: Uint8Array, offset: number): Promise<number> {
  return new Promise((resolve, reject) => {
    const length = Math.min(buffer.length, CALL_BYTES);
    write(descriptor, buffer, 0, length, offset, (error, count) =>
      error === null ? resolve(count) : reject(error),
    );
  });
}

function syncDescriptor(descriptor: number): Promise<void> {
  return new Promise((resolve, reject) => {
    fdatasync(descriptor, (error) => (error === null ? resolve() : reject(error)));
  });
}

/** Null for a folder that may be written to and not read: its names cannot be synced. */
function openFolder(path: string): number | null {
  try {
    return openSync(path, 'r');
  } catch (error) {
    if (toBlockError(error).kind === 'access-denied') return null;
    throw error;
  }
}
