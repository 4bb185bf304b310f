// SPDX-License-Identifier: Apache-2.0
// The files of a simulated host, by path; what happens to them can be recorded by a crash disk.
//
// Names are durable at once: only contents and sizes are at risk in a power cut.

import { posix } from 'node:path';

import type { FileIdentity } from '../host.js';
import { PagedStore } from './paged-store.js';

/** A change of a file's contents or size, in the order in which the changes took effect. */
export type VolumeChange =
  | { readonly kind: 'write'; readonly offset: number; readonly bytes: Uint8Array }
  | { readonly kind: 'write-zeroes'; readonly offset: number; readonly length: number }
  | { readonly kind: 'discard'; readonly offset: number; readonly length: number }
  | { readonly kind: 'truncate'; readonly size: number };

export class VolumeNode {
  readonly path: string;
  readonly identity: FileIdentity;
  readonly store: PagedStore;

  constructor(path: string, inode: number, store: PagedStore) {
    this.path = path;
    this.identity = { device: 'simulated', inode: String(inode) };
    this.store = store;
  }
}

export class SimulatedVolume {
  readonly #nodes = new Map<string, VolumeNode>();
  #nextInode = 1;

  find(path: string): VolumeNode | undefined {
    return this.#nodes.get(normalize(path));
  }

  create(path: string, store = new PagedStore()): VolumeNode {
    const name = normalize(path);
    const node = new VolumeNode(name, this.#nextInode++, store);
    this.#nodes.set(name, node);
    return node;
  }

  remove(path: string): boolean {
    return this.#nodes.delete(normalize(path));
  }

  nodes(): IterableIterator<VolumeNode> {
    return this.#nodes.values();
  }
}

/** Applies a change; `discard` is taken as zeroing. */
export function applyChange(store: PagedStore, change: VolumeChange): void {
  switch (change.kind) {
    case 'write':
      store.write(change.bytes, change.offset);
      break;
    case 'write-zeroes':
      store.zero(change.offset, change.length, true);
      break;
    case 'discard':
      store.zero(change.offset, change.length, false);
      break;
    case 'truncate':
      store.truncate(change.size);
      break;
  }
}

function normalize(path: string): string {
  return posix.resolve('/', path);
}
