// SPDX-License-Identifier: Apache-2.0
// The in-process table of file locks, consulted before the locks of the operating system.
//
// It keeps two opens of one file in this process apart by the same byte rules that other processes
// see, in the simulated host too. Keys are (device, inode), so names and links do not matter.
// An owner has one declaration per file; a later one replaces it at once or not at all.

import { BlockError } from '../../base/index.js';
import { findConflict, type LockRequest } from '../file-locks.js';
import type { FileIdentity } from '../host.js';

/** Any object; compared by reference. */
export type LockOwner = object;

/** The refusal of a lock, in the words that scripts match; `holder` says who is in the way. */
export function lockConflict(
  conflict: { permission: string; shared: boolean },
  path: string,
  holder?: string,
): BlockError {
  const shared = conflict.shared ? 'shared ' : '';
  return new BlockError('locked', `Failed to get ${shared}"${conflict.permission}" lock`, {
    path,
    hint: `Is another process using the image [${path}]?`,
    ...(holder === undefined ? {} : { holder }),
  });
}

/** What an owner declared, and for whom, as named in refusals. */
export interface Declaration extends LockRequest {
  readonly user?: string;
}

export class LockTable {
  readonly #files = new Map<string, Map<LockOwner, Declaration>>();

  /** Throws kind `locked` when an owner other than `owner` conflicts; changes nothing. */
  check(
    file: { readonly identity: FileIdentity; readonly path: string },
    owner: LockOwner,
    wanted: LockRequest,
  ): void {
    const holders = this.#files.get(keyOf(file.identity));
    if (holders === undefined) return;
    for (const [holder, held] of holders) {
      if (holder === owner) continue;
      const conflict = findConflict(wanted, held);
      if (conflict !== null) throw lockConflict(conflict, file.path, held.user);
    }
  }

  /** Replaces the declaration of `owner`; to be called after check(). */
  set(identity: FileIdentity, owner: LockOwner, request: Declaration): void {
    const key = keyOf(identity);
    const holders = this.#files.get(key);
    if (request.taken === 0 && request.unshared === 0) {
      holders?.delete(owner);
      if (holders?.size === 0) this.#files.delete(key);
    } else if (holders === undefined) {
      this.#files.set(key, new Map([[owner, request]]));
    } else {
      holders.set(owner, request);
    }
  }

  /** Number of files with at least one declaration. */
  get size(): number {
    return this.#files.size;
  }
}

/** The table of this process, for files of the operating system. */
export const processLocks = new LockTable();

function keyOf(identity: FileIdentity): string {
  return `${identity.device}:${identity.inode}`;
}
