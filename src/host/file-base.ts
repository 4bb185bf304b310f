// SPDX-License-Identifier: Apache-2.0
// What every open file has in common: holders, locks, write generations and the poison of a
// failed sync. The host-specific part reads, writes and flushes.
//
// Sync order: a write is counted when it completes (or fails); a sync covers the count at its
// start. A caller joins the running host sync when that began after the caller's last write, else
// the next one, of which there is at most one. A file opened for writing counts as written, for
// whoever wrote it before may not have flushed it. Closing syncs what was written through this
// opening, and fails (closed all the same) if that fails and nobody was told of a failure before.
// Lock order: table first, then the host's locks.

import { assert, BlockError, toBlockError, type Eventually } from '../base/index.js';
import type { LockRequest } from './file-locks.js';
import type {
  CreateFileOptions,
  FileIdentity,
  HostExtent,
  HostFile,
  HostFileCapabilities,
} from './host.js';
import type { LockTable } from './locks/lock-table.js';

export interface FileBaseOptions {
  readonly path: string;
  readonly identity: FileIdentity;
  readonly kind: 'file' | 'block-device';
  readonly readOnly: boolean;
  readonly noFlush: boolean;
  readonly alignment: number;
  readonly locks: LockTable;
}

interface HostSync {
  readonly generation: number;
  readonly done: Promise<void>;
}

const NO_LOCKS: LockRequest = { taken: 0, unshared: 0 };

export abstract class FileBase implements HostFile {
  readonly path: string;
  readonly identity: FileIdentity;
  readonly kind: 'file' | 'block-device';
  readonly readOnly: boolean;
  readonly alignment: number;
  readonly flushes: boolean;
  abstract readonly capabilities: HostFileCapabilities;
  abstract readonly descriptor: number | null;

  readonly #locks: LockTable;
  #lockHeld: LockRequest = NO_LOCKS;
  #written: number;
  #synced = 0;
  #running: HostSync | null = null;
  #queued: Promise<void> | null = null;
  #poison: BlockError | null = null;
  #holders = 0;
  #closing: Promise<void> | null = null;
  #lastReleased: (() => void) | null = null;
  #closed = false;

  constructor(options: FileBaseOptions) {
    this.path = options.path;
    this.identity = options.identity;
    this.kind = options.kind;
    this.readOnly = options.readOnly;
    this.alignment = options.alignment;
    this.flushes = !options.noFlush;
    this.#locks = options.locks;
    this.#written = options.readOnly ? 0 : 1;
  }

  abstract size(): number;
  abstract allocatedBytes(): number;
  abstract read(buffer: Uint8Array, offset: number): Eventually<number>;
  abstract write(buffer: Uint8Array, offset: number): Eventually<void>;
  abstract writeZeroes(offset: number, length: number, mayUnmap: boolean): Eventually<void>;
  abstract discard(offset: number, length: number): Eventually<void>;
  abstract extent(offset: number, length: number): HostExtent;
  abstract truncate(
    size: number,
    preallocation?: CreateFileOptions['preallocation'],
  ): Eventually<void>;

  /** Makes the writes that completed so far durable, by a call of the host. */
  protected abstract syncHost(): Promise<void>;
  /** Sets the locks that other processes see; throws kind `locked` and changes nothing then. */
  protected abstract lockHost(next: LockRequest, held: LockRequest): void;
  /** Sets the same without looking for conflicts. */
  protected abstract adoptHostLocks(request: LockRequest): void;
  protected abstract closeHost(): Promise<void>;

  sync(): Promise<void> {
    this.assertOpen();
    if (!this.flushes) return Promise.resolve();
    if (this.#poison !== null) return Promise.reject(this.#poison);
    if (this.#synced >= this.#written) return Promise.resolve();
    if (this.#running === null && this.#queued === null) return this.#startSync();
    const running = this.#running;
    if (running !== null && running.generation >= this.#written) return running.done;
    this.#queued ??= this.#syncAfter(running?.done);
    return this.#queued;
  }

  noteForeignWrite(): void {
    this.noteWrite();
  }

  lock(request: LockRequest, user?: string): void {
    this.assertOpen();
    this.#locks.check(this, this, request);
    this.lockHost(request, this.#lockHeld);
    const declared = user === undefined ? request : { ...request, user };
    this.#locks.set(this.identity, this, declared);
    this.#lockHeld = declared;
  }

  takeOverLocks(from: HostFile): void {
    assert(from instanceof FileBase, 'locks move between files of one host');
    this.assertOpen();
    const request = from.#lockHeld;
    this.adoptHostLocks(request);
    this.#locks.set(this.identity, this, request);
    this.#lockHeld = request;
    from.lock(NO_LOCKS);
  }

  hold(): void {
    this.assertOpen();
    this.#holders += 1;
  }

  release(): void {
    assert(this.#holders > 0, `release of '${this.path}' without hold`);
    this.#holders -= 1;
    if (this.#holders === 0) this.#lastReleased?.();
  }

  close(): Promise<void> {
    this.#closing ??= this.#finish();
    return this.#closing;
  }

  /** Counts a write, zeroing, discard or size change that is over, successful or not. */
  protected noteWrite(): void {
    this.#written += 1;
  }

  /** Throws unless the file may be changed: open, not read-only, no failed sync behind it. */
  protected assertWritable(): void {
    this.assertOpen();
    if (this.#poison !== null) throw this.#poison;
    if (this.readOnly) {
      throw new BlockError('read-only', `'${this.path}' is opened read-only`, { path: this.path });
    }
  }

  protected assertOpen(): void {
    assert(!this.#closed, `use of '${this.path}' after close`);
  }

  protected assertAligned(offset: number, length: number): void {
    assert(
      Number.isSafeInteger(offset) && offset >= 0 && Number.isSafeInteger(offset + length),
      `offset ${offset} of '${this.path}' is no file offset`,
    );
    if (this.alignment === 1) return;
    assert(
      offset % this.alignment === 0 && length % this.alignment === 0,
      `request at ${offset} of ${length} bytes is not aligned to ${this.alignment}`,
    );
  }

  #startSync(): Promise<void> {
    const generation = this.#written;
    const done = this.#runSync(generation);
    this.#running = { generation, done };
    return done;
  }

  async #runSync(generation: number): Promise<void> {
    try {
      await this.syncHost();
      this.#synced = generation;
    } catch (error) {
      const failure = toBlockError(error, { path: this.path, operation: 'sync' });
      this.#poison = new BlockError(
        'io',
        `An earlier flush of '${this.path}' failed: ${failure.message}`,
        { path: this.path, cause: failure },
      );
      throw failure;
    } finally {
      this.#running = null;
    }
  }

  async #syncAfter(running: Promise<void> | undefined): Promise<void> {
    await running?.catch(() => undefined);
    this.#queued = null;
    if (this.#poison !== null) throw this.#poison;
    await this.#startSync();
  }

  async #finish(): Promise<void> {
    while (this.#holders > 0 || this.#running !== null || this.#queued !== null) {
      if (this.#holders > 0) await this.#untilReleased();
      else await (this.#queued ?? this.#running?.done)?.catch(() => undefined);
    }
    try {
      if (this.#poison === null && this.#written > Math.max(1, this.#synced)) await this.sync();
    } finally {
      // A program that is being started has a copy of the descriptor: closing alone frees no lock.
      this.lock(NO_LOCKS);
      this.#closed = true;
      await this.closeHost();
    }
  }

  #untilReleased(): Promise<void> {
    return new Promise((resolve) => {
      this.#lastReleased = resolve;
    });
  }
}
