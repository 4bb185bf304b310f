// SPDX-License-Identifier: Apache-2.0
// What the block layer needs of the world: files, locks, time and randomness.
//
// Three implementations: native/ (the addon), node/ (Node's own calls only), simulated/ (memory,
// with a crash disk). Data calls are synchronous first: they return the plain value when they
// finished inline and a promise only when they must wait; the simulated host does either, by seed.

import type { Clock, Eventually, Random } from '../base/index.js';
import type { LockRequest } from './file-locks.js';

/** Same device and inode mean the same file, whatever the path. */
export interface FileIdentity {
  readonly device: string;
  readonly inode: string;
}

export interface FileStat {
  readonly identity: FileIdentity;
  readonly kind: 'file' | 'block-device' | 'directory' | 'other';
  /** Bytes; for a block device its capacity. */
  readonly size: number;
  /** Bytes the host has allocated for the file. */
  readonly allocatedBytes: number;
}

export interface OpenFileOptions {
  readonly readOnly: boolean;
  /** O_DIRECT: every offset, length and buffer must honour `alignment`. */
  readonly direct?: boolean;
  /** `sync()` does nothing (the cache mode `unsafe`). */
  readonly noFlush?: boolean;
}

export interface CreateFileOptions {
  /** Bytes. */
  readonly size: number;
  readonly preallocation: 'off' | 'falloc' | 'full';
}

/** What the host can do beyond reading and writing; each missing one has a defined fallback. */
export interface HostFileCapabilities {
  readonly discard: boolean;
  readonly writeZeroes: boolean;
  /** `extent()` knows holes; without it everything is reported as data. */
  readonly extents: boolean;
  /** Real OFD locks that other processes see. */
  readonly locks: boolean;
}

export interface HostExtent {
  readonly kind: 'data' | 'hole';
  /** Bytes from the offset asked for; at least 1, unless the offset is at or past the end. */
  readonly length: number;
}

/**
 * One open file. `hold()` keeps the descriptor open across a lane's work: close() waits for every
 * holder. After a failed sync() every later sync() and write fails until the file is reopened.
 */
export interface HostFile {
  readonly path: string;
  readonly identity: FileIdentity;
  readonly kind: 'file' | 'block-device';
  readonly readOnly: boolean;
  /** Bytes: offsets, lengths and addresses must be multiples of it; 1 unless opened direct. */
  readonly alignment: number;
  readonly capabilities: HostFileCapabilities;
  /** False where sync() does nothing, by the cache mode. */
  readonly flushes: boolean;
  /** Descriptor that worker threads may use while held; null for a file of the simulated host. */
  readonly descriptor: number | null;

  /** Present size in bytes. */
  size(): number;
  /** Bytes that the host has allocated for the file. */
  allocatedBytes(): number;
  /** Fills `buffer` from `offset`; gives the bytes read, fewer only at the end of the file. */
  read(buffer: Uint8Array, offset: number): Eventually<number>;
  /** Writes all of `buffer` at `offset`, growing the file when needed. */
  write(buffer: Uint8Array, offset: number): Eventually<void>;
  /** Makes the range read as zeroes; throws kind `unsupported` without the capability. */
  writeZeroes(offset: number, length: number, mayUnmap: boolean): Eventually<void>;
  /** Gives the range back to the host; does nothing without the capability. */
  discard(offset: number, length: number): Eventually<void>;
  /** Data or hole at `offset`, looking no further than `length` bytes. */
  extent(offset: number, length: number): HostExtent;
  /** Sets the size in bytes; a longer file reads zeroes in the new part. */
  truncate(size: number, preallocation?: CreateFileOptions['preallocation']): Eventually<void>;
  /**
   * Makes every write that completed before the call durable. Skipped when nothing was written
   * since the last sync; concurrent callers share one host call begun after the last of them.
   */
  sync(): Promise<void>;
  /**
   * Declares permissions taken and not shared; replaces the earlier declaration atomically.
   * Throws kind `locked` and keeps the earlier one when another holder conflicts. `user` names the
   * one who asks to others of this process who are refused.
   */
  lock(request: LockRequest, user?: string): void;
  /**
   * Moves what `from`, another opening of the same file by the same host, declared to this one:
   * at no moment is the file without it. Throws with nothing changed where a lock cannot be set.
   */
  takeOverLocks(from: HostFile): void;
  /** Counts one more user that close() must wait for. */
  hold(): void;
  release(): void;
  /** Marks bytes written by someone who used `descriptor` directly, so that sync() covers them. */
  noteForeignWrite(): void;
  /** Releases locks and the descriptor once no holder is left; idempotent. */
  close(): Promise<void>;
}

export interface Host {
  readonly name: 'native' | 'node' | 'simulated';
  readonly clock: Clock;
  readonly random: Random;
  /** Bytes that nobody can guess, for keys and salts; simulated hosts replay theirs. */
  fillSecret(buffer: Uint8Array): void;
  /**
   * Iterations of a key derivation that count as a millisecond; absent: they are measured.
   * Simulated hosts have a number, so that a seed replays what is made of it.
   */
  readonly iterationsPerMs?: number;
  /** Refuses directories, FIFOs and character devices at once, without blocking. */
  openFile(path: string, options: OpenFileOptions): Promise<HostFile>;
  /** The same in this turn; for files that were opened before, since it may block. */
  openFileNow(path: string, options: OpenFileOptions): HostFile;
  /** Creates (or, when it exists, opens without truncating) a regular file for writing. */
  createFile(path: string): Promise<HostFile>;
  /** Null when nothing is there. */
  stat(path: string): Promise<FileStat | null>;
  removeFile(path: string): Promise<void>;
  /**
   * All of a file or pipe of at most `most` bytes, the event loop going on meanwhile. Throws kind
   * `too-large` for more.
   */
  readWhole(path: string, most: number): Promise<Uint8Array>;
}
