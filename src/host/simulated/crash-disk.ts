// SPDX-License-Identifier: Apache-2.0
// A host that can lose its power at any moment.
//
// Beside what readers see it keeps what is durable, and the ordered changes between the two. A
// successful sync makes durable what had taken effect when it began. A power cut leaves the
// durable contents plus any subset of the other changes, in any order, torn at 512-byte sectors.
// Cutting the power makes a new host and leaves this one running, so that a single run can be cut
// at each of its writes.

import { assert, type Random } from '../../base/index.js';
import { MemoryHost } from './memory-host.js';
import type { PagedStore } from './paged-store.js';
import { applyChange, type VolumeChange, type VolumeNode } from './simulated-volume.js';

/** The unit that a power cut does not tear, in bytes. */
const SECTOR_BYTES = 512;

/** Largest zeroed range whose sectors are torn one by one; larger ones split into this many. */
const TORN_PIECES = 64;

export interface UnsyncedChange {
  readonly path: string;
  readonly kind: VolumeChange['kind'];
  readonly offset: number;
  /** Bytes; 0 for a truncate, whose new size is `offset`. */
  readonly length: number;
}

/**
 * What a power cut leaves of the unsynced changes: a Random picks a subset, an order and the torn
 * sectors; a list keeps the changes with these indexes of `unsyncedChanges()`, in that order.
 */
export type PowerLossChoice = Random | readonly number[];

interface Unsynced {
  readonly node: VolumeNode;
  readonly change: VolumeChange;
}

export class CrashDisk extends MemoryHost {
  /** Called after every change with its number from 0; may take power-loss images. */
  onWrite: ((index: number) => void) | null = null;
  readonly #durable = new Map<VolumeNode, PagedStore>();
  #unsynced: Unsynced[] = [];
  #changes = 0;

  /** Changes of file contents and sizes so far. */
  get writeCount(): number {
    return this.#changes;
  }

  /** What a power cut may lose, oldest first. */
  unsyncedChanges(): UnsyncedChange[] {
    return this.#unsynced.map(({ node, change }) => ({
      path: node.path,
      kind: change.kind,
      offset: change.kind === 'truncate' ? change.size : change.offset,
      length: lengthOf(change),
    }));
  }

  /** The host as it is found after a power cut at this moment. */
  afterPowerLoss(choice: PowerLossChoice): MemoryHost {
    const stores = new Map<VolumeNode, PagedStore>();
    for (const node of this.volume.nodes()) {
      stores.set(node, (this.#durable.get(node) ?? node.store).clone());
    }
    if (isRandom(choice)) surviveByChance(this.#unsynced, stores, choice);
    else this.#surviveByList(stores, choice);
    const host = new RecoveredHost({ clock: this.clock });
    host.adopt(stores);
    return host;
  }

  /** The host as it is found when every unsynced change is lost. */
  durable(): MemoryHost {
    return this.afterPowerLoss([]);
  }

  override putFile(path: string, contents: Uint8Array, size = contents.length): void {
    const old = this.volume.find(path);
    if (old !== undefined) this.#forget(old);
    super.putFile(path, contents, size);
  }

  override async removeFile(path: string): Promise<void> {
    const node = this.volume.find(path);
    await super.removeFile(path);
    if (node !== undefined) this.#forget(node);
  }

  protected override recordChange(node: VolumeNode, change: VolumeChange): void {
    assert(this.#durable.has(node), `durable state of '${node.path}'`);
    this.#unsynced.push({ node, change });
    const index = this.#changes++;
    this.onWrite?.(index);
  }

  protected override beforeChange(node: VolumeNode): void {
    if (!this.#durable.has(node)) this.#durable.set(node, node.store.clone());
  }

  protected override beginSync(node: VolumeNode): () => void {
    const covered = new Set(this.#unsynced.filter((entry) => entry.node === node));
    return () => {
      const durable = this.#durable.get(node);
      if (durable === undefined) return;
      this.#unsynced = this.#unsynced.filter((entry) => {
        if (!covered.has(entry)) return true;
        applyChange(durable, entry.change);
        return false;
      });
    };
  }

  #forget(node: VolumeNode): void {
    this.#durable.delete(node);
    this.#unsynced = this.#unsynced.filter((entry) => entry.node !== node);
  }

  #surviveByList(stores: Map<VolumeNode, PagedStore>, kept: readonly number[]): void {
    for (const index of kept) {
      const entry = this.#unsynced[index];
      assert(entry !== undefined, `there is no unsynced change ${index}`);
      const store = stores.get(entry.node);
      if (store !== undefined) applyChange(store, entry.change);
    }
  }
}

class RecoveredHost extends MemoryHost {
  adopt(stores: Map<VolumeNode, PagedStore>): void {
    for (const [node, store] of stores) this.volume.create(node.path, store);
  }
}

function surviveByChance(
  unsynced: readonly Unsynced[],
  stores: Map<VolumeNode, PagedStore>,
  random: Random,
): void {
  const order = [...unsynced];
  if (random.chance(0.5)) shuffle(order, random);
  const keepChance = [0, 0.25, 0.5, 0.75, 1][random.below(5)] ?? 0.5;
  for (const { node, change } of order) {
    const store = stores.get(node);
    if (store === undefined || !random.chance(keepChance)) continue;
    if (change.kind === 'truncate' || random.chance(0.7)) applyChange(store, change);
    else applyTorn(store, change, random);
  }
}

/** Applies some sectors of a change; pieces end at sector boundaries of the file. */
function applyTorn(
  store: PagedStore,
  change: Exclude<VolumeChange, { kind: 'truncate' }>,
  random: Random,
): void {
  const end = change.offset + lengthOf(change);
  const step =
    change.kind === 'write'
      ? SECTOR_BYTES
      : Math.max(1, Math.ceil(lengthOf(change) / (SECTOR_BYTES * TORN_PIECES))) * SECTOR_BYTES;
  for (let at = change.offset; at < end; ) {
    const next = Math.min(end, Math.floor(at / SECTOR_BYTES) * SECTOR_BYTES + step);
    if (random.chance(0.5)) {
      if (change.kind === 'write') {
        store.write(change.bytes.subarray(at - change.offset, next - change.offset), at);
      } else {
        store.zero(at, next - at, change.kind === 'write-zeroes');
      }
    }
    at = next;
  }
}

function lengthOf(change: VolumeChange): number {
  if (change.kind === 'write') return change.bytes.length;
  return change.kind === 'truncate' ? 0 : change.length;
}

function shuffle(list: Unsynced[], random: Random): void {
  for (let index = list.length - 1; index > 0; index -= 1) {
    const other = random.below(index + 1);
    const moved = list[index] as Unsynced;
    list[index] = list[other] as Unsynced;
    list[other] = moved;
  }
}

function isRandom(choice: PowerLossChoice): choice is Random {
  return 'chance' in choice;
}
