// SPDX-License-Identifier: Apache-2.0
// The persistent bitmaps of an open image: loaded with it, marked as in use on disk before the
// first change of the image, and stored when the image rests again.
//
// What is on disk never says too little. While an image can be written to, its bitmaps are marked
// in use: what is found of them after a power cut is not trusted. Storing goes
//   1. bits and tables into new clusters, then a new directory   2. flush, guest data included
//   3. the header names the new directory (header-switch.ts)     4. what the old one had is freed
// so that a power cut leaves the marked ones or the stored ones, and leaks at worst. Afterwards
// the first change has to mark them again, whoever makes it: the instance keeps it waiting.

import { Buffer } from 'node:buffer';

import {
  BITMAP_LIMITS,
  BlockError,
  IMAGE_LIMITS,
  NAME_LIMITS,
  Turns,
} from '../../../../base/index.js';
import {
  attachBitmap,
  bitmapsOf,
  checkBitmapUsable,
  findBitmap,
} from '../../../../block/index.js';
import type { BitmapStore, DirtyBitmap, Node } from '../../../../block/index.js';
import type { BitmapsPlace } from '../header.js';
import { BitmapFlag } from '../layout.js';
import type { MetadataStore } from '../metadata/index.js';
import {
  directoryBytes,
  directoryPieces,
  entryBytes,
  factsOf,
  flagOffsets,
  isAuto,
  isInUse,
  readEntries,
} from './directory.js';
import type { BitmapEntry, BitmapFacts } from './directory.js';
import { clustersOf, loadBits, LoadBudget, storeBits, takeClusters } from './tables.js';
import { DirectoryMarker } from './marker.js';
import type { Runs } from './tables.js';

const EMPTY_IMAGE = 'An image of 0 bytes has no bits to store';

/** The header side, as far as bitmaps need it. */
export interface BitmapsHeader {
  readonly place: BitmapsPlace | null;
  /** Names another directory, or none; durable when it resolves. */
  change(place: BitmapsPlace | null): Promise<void>;
}

interface PlacedDirectory {
  readonly place: BitmapsPlace;
  readonly entries: readonly BitmapEntry[];
}

export interface PersistentOptions {
  readonly store: MetadataStore;
  /** The node that the image serves: its bitmaps are those that are stored. */
  readonly node: Node;
  readonly header: BitmapsHeader;
}

export class PersistentBitmaps implements BitmapStore {
  readonly #store: MetadataStore;
  readonly #node: Node;
  readonly #header: BitmapsHeader;
  readonly #turns = new Turns();
  /** As on disk. */
  #entries: readonly BitmapEntry[] = [];
  /** One that a failed change of the header may have named all the same. */
  #doubtful: PlacedDirectory | null = null;
  /** Due before the directory changes, as before any change of the image. */
  beforeChange: () => Promise<void> = () => Promise.resolve();

  constructor(options: PersistentOptions) {
    this.#store = options.store;
    this.#node = options.node;
    this.#header = options.header;
  }

  get keeps(): boolean {
    return this.#store.image.version >= 3;
  }

  get facts(): BitmapFacts[] {
    return this.#entries.map(factsOf);
  }

  /** Whether some bitmap on disk would be trusted although the image can change. */
  get isTrusted(): boolean {
    return this.#doubtful !== null || someTrusted(this.#entries);
  }

  /**
   * Reads the directory and, with `attach`, gives the node the bitmaps that it does not have yet.
   * Kind `corrupt-image` for the first broken structure.
   */
  async load(attach: boolean): Promise<void> {
    const { image } = this.#store;
    const place = this.#header.place;
    if (place === null) return;
    const bounds = { clusterSize: image.clusterSize, size: image.size };
    const entries: BitmapEntry[] = [];
    for await (const entry of readEntries(image.file, place, bounds)) entries.push(entry);
    const budget = new LoadBudget();
    const names = new Set<string>();
    const loaded: { bitmap: DirtyBitmap; entry: BitmapEntry }[] = [];
    for (const entry of entries) {
      if (names.has(entry.name)) {
        throw new BlockError('corrupt-image', `Bitmap already exists: ${entry.name}`);
      }
      names.add(entry.name);
    }
    if (attach) this.#requireBits(entries);
    const known = new Set(bitmapsOf(this.#node).map(({ name }) => name));
    for (const entry of attach ? entries : []) {
      if (known.has(entry.name)) continue;
      const bitmap = attachBitmap(this.#node, {
        name: entry.name,
        size: image.size,
        granularity: 2 ** entry.granularityBits,
        enabled: isAuto(entry),
        persistent: true,
      });
      bitmap.inconsistent = isInUse(entry);
      bitmap.readOnly = image.readOnly;
      loaded.push({ bitmap, entry });
    }
    for (const { bitmap, entry } of loaded) {
      if (isInUse(entry)) continue;
      await loadBits({ file: image.file, bounds, budget }, entry, bitmap);
    }
    this.#entries = entries;
    image.overlaps.setBitmapDirectory(place);
  }

  #requireBits(entries: readonly BitmapEntry[]): void {
    const { size } = this.#store.image;
    for (const entry of entries) {
      if (size / 2 ** entry.granularityBits <= BITMAP_LIMITS.bits) continue;
      const text = `Bitmap '${entry.name}' has more than ${BITMAP_LIMITS.bits} bits`;
      throw new BlockError('unsupported', text);
    }
  }

  /** Marks all on disk as in use, durably. */
  markInUse(): Promise<void> {
    return this.#turns.run(() => this.#mark());
  }

  async #mark(): Promise<void> {
    const doubtful = this.#doubtful;
    if (doubtful !== null) await this.#markAt(doubtful);
    this.#doubtful = null;
    const place = this.#header.place;
    if (place === null || !someTrusted(this.#entries)) return;
    const entries = this.#entries;
    await this.#markAt({ place, entries });
    this.#entries = entries.map((entry) => ({ ...entry, flags: entry.flags | BitmapFlag.inUse }));
  }

  async #markAt({ place, entries }: PlacedDirectory): Promise<void> {
    const { image } = this.#store;
    image.assertWritable();
    const hit = image.overlaps.hitBesideBitmaps(place.offset, place.size);
    if (hit !== null) {
      const { offset, size: length } = place;
      throw image.overlapError(hit, 'bitmap directory', { offset, length });
    }
    const marker = new DirectoryMarker(image, place);
    for (const offset of flagOffsets(entries)) await marker.mark(offset);
    await marker.finish();
    await image.sync();
  }

  /** The node's own are read-only as long as its image is. */
  setReadOnly(readOnly: boolean): void {
    for (const bitmap of bitmapsOf(this.#node)) {
      if (bitmap.persistent) bitmap.readOnly = readOnly;
    }
  }

  /** Stores what the node has, and trusts it from then on. A failure leaves all marked in use. */
  store(): Promise<void> {
    return this.#turns.run(async () => {
      // Of those that are new the newest comes first, as in the reference.
      const stored = bitmapsOf(this.#node).toReversed().filter(
        ({ persistent, inconsistent, readOnly, leaving }) =>
          persistent && !inconsistent && !readOnly && !leaving,
      );
      if (stored.length === 0) return;
      if (this.#store.image.size === 0) {
        throw lost(this.#node, new BlockError('unsupported', EMPTY_IMAGE));
      }
      const taken: Runs = [];
      try {
        await this.#replace(await this.#storeAll(stored, taken), taken);
      } catch (error) {
        throw lost(this.#node, error);
      }
    });
  }

  /** Takes the bits as they are now, of a frozen bitmap those of its successor as well. */
  async #storeAll(bitmaps: readonly DirtyBitmap[], taken: Runs): Promise<BitmapEntry[]> {
    const copies = bitmaps.map((bitmap) => {
      const copy = bitmap.copy(bitmap.name);
      if (bitmap.successor !== null) copy.merge(bitmap.successor);
      copy.enabled = bitmap.recording;
      return copy;
    });
    const entries = new Map(this.#entries.map((entry) => [entry.name, entry]));
    try {
      for (const copy of copies) {
        const name = copy.name ?? '';
        const table = await storeBits(this.#store, copy, taken);
        entries.set(name, {
          name,
          ...nameOf(entries.get(name), name),
          ...table,
          granularityBits: Math.log2(copy.granularity),
          flags: copy.enabled ? BitmapFlag.auto : 0,
        });
      }
    } catch (error) {
      this.#giveBack(taken);
      throw error;
    }
    return [...entries.values()];
  }

  /** Switches to a directory of these entries; `taken` are new clusters that they name. */
  async #replace(entries: readonly BitmapEntry[], taken: Runs): Promise<void> {
    const { image, flusher, refcounts } = this.#store;
    const old = this.#header.place;
    const kept = new Set(entries.map(({ tableOffset }) => tableOffset));
    const size = directoryBytes(entries);
    let place: BitmapsPlace | null = null;
    const freed: Runs = [];
    try {
      for (const entry of this.#entries) {
        if (kept.has(entry.tableOffset)) continue;
        for (const run of await clustersOf(this.#store, entry)) freed.push(run);
      }
      if (entries.length > 0) {
        requireDirectory(entries.length, size);
        const offset = await this.#write(entries, size, taken);
        place = { count: entries.length, offset, size };
      }
      await flusher.flush(true);
    } catch (error) {
      this.#giveBack(taken);
      throw error;
    }
    // From here on it is not known which of the two a failure leaves: neither is given back.
    try {
      await this.#header.change(place);
    } catch (error) {
      if (place !== null && someTrusted(entries)) this.#doubtful = { place, entries };
      throw error;
    }
    this.#doubtful = null;
    this.#entries = entries;
    image.overlaps.setBitmapDirectory(place);
    if (old !== null) {
      const clusters = Math.ceil(old.size / image.clusterSize);
      freed.push({ offset: old.offset, clusters });
    }
    for (const { offset, clusters } of freed) {
      if (image.overlaps.isMetadata(offset, clusters * image.clusterSize)) continue;
      refcounts.free(offset, clusters, false);
    }
  }

  /** Writes a directory of so many bytes to new clusters. */
  async #write(entries: readonly BitmapEntry[], size: number, taken: Runs): Promise<number> {
    const { image } = this.#store;
    const clusters = Math.ceil(size / image.clusterSize);
    const run = await takeClusters(this.#store, clusters);
    taken.push(run);
    let at = run.offset;
    for (const piece of directoryPieces(entries, clusters * image.clusterSize)) {
      await image.writeFile(at, piece);
      at += piece.length;
    }
    return run.offset;
  }

  #giveBack(taken: Runs): void {
    for (const { offset, clusters } of taken.splice(0)) {
      this.#store.refcounts.undo(offset, clusters);
    }
  }

  async remove(name: string): Promise<void> {
    if (!this.#entries.some((entry) => entry.name === name)) return;
    await this.beforeChange();
    await this.#turns.run(async () => {
      const rest = this.#entries.filter((entry) => entry.name !== name);
      if (rest.length < this.#entries.length) await this.#replace(rest, []);
    });
    await this.#store.flusher.flushAll();
  }

  requireRoom({ name, granularity, size }: Parameters<BitmapStore['requireRoom']>[0]): void {
    const reason = this.#refusal({ name, granularity, size });
    if (reason === null) return;
    throw new BlockError(
      'unsupported',
      `Can't make bitmap '${name}' persistent in '${this.#node.name}': ${reason}`,
    );
  }

  #refusal({ name, granularity, size }: Parameters<BitmapStore['requireRoom']>[0]): string | null {
    const { image } = this.#store;
    if (image.version < 3) return 'Cannot store dirty bitmaps in qcow2 v2 files';
    if (size === 0) return EMPTY_IMAGE;
    const nameBytes = Buffer.byteLength(name);
    if (nameBytes > NAME_LIMITS.bitmapNameBytes) {
      return `Name length exceeds maximum (${NAME_LIMITS.bitmapNameBytes} characters)`;
    }
    const most = Math.min(
      IMAGE_LIMITS.qcow2BitmapBytes,
      IMAGE_LIMITS.qcow2BitmapTableEntries * image.clusterSize,
    );
    if (size > most * 8 * granularity) {
      return 'Too much space will be occupied by the bitmap. Use larger granularity';
    }
    let count = 1;
    let bytes = entryBytes(nameBytes);
    for (const bitmap of bitmapsOf(this.#node)) {
      if (!bitmap.persistent) continue;
      count += 1;
      bytes += entryBytes(Buffer.byteLength(bitmap.name ?? ''));
    }
    if (count > IMAGE_LIMITS.qcow2Bitmaps) {
      return 'Maximum number of persistent bitmaps is already reached';
    }
    if (bytes <= IMAGE_LIMITS.qcow2BitmapDirectoryBytes) return null;
    return 'Not enough space in the bitmap directory';
  }

  /** Throws where the node has any bitmap, be it kept with the image or not. */
  requireNone(): void {
    if (bitmapsOf(this.#node).length === 0) return;
    throw new BlockError('busy', 'Device has active dirty bitmaps');
  }

  /** Throws where a stored bitmap cannot follow another size of the image. */
  requireResizable(): void {
    for (const { name } of this.#entries) {
      const bitmap = findBitmap(this.#node, name);
      if (bitmap !== null) checkBitmapUsable(bitmap, 'change');
    }
  }
}

/** Of an entry that is there the bytes stay. */
function nameOf(
  entry: BitmapEntry | undefined,
  name: string,
): Pick<BitmapEntry, 'nameLength' | 'nameBytes'> {
  if (entry === undefined) return { nameLength: Buffer.byteLength(name) };
  const { nameLength, nameBytes } = entry;
  return nameBytes === undefined ? { nameLength } : { nameLength, nameBytes };
}

function someTrusted(entries: readonly BitmapEntry[]): boolean {
  return entries.some((entry) => !isInUse(entry));
}

function requireDirectory(count: number, bytes: number): void {
  if (count > IMAGE_LIMITS.qcow2Bitmaps) {
    throw new BlockError('unsupported', 'Too many persistent bitmaps');
  }
  if (bytes > IMAGE_LIMITS.qcow2BitmapDirectoryBytes) {
    throw new BlockError('unsupported', 'Bitmap directory is too large');
  }
}

function lost(node: Node, error: unknown): unknown {
  if (!(error instanceof BlockError)) return error;
  const text = `Lost persistent bitmaps during inactivation of node '${node.name}'`;
  const context = { ...error.context, cause: error };
  return new BlockError(error.kind, `${text}: ${error.message}`, context);
}
