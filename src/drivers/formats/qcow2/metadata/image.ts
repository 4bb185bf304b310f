// SPDX-License-Identifier: Apache-2.0
// The shared state of one open qcow2 image: geometry, the raw L1 and refcount tables, the caches.
//
// Tables stay in memory as the big-endian bytes that are on disk, so that writing one is a copy.
// The L1 and refcount tables are always complete in memory and dirty by sectors of 512 bytes; L2
// tables and refcount blocks live in table caches. Everything here is changed synchronously; the
// order in which it reaches the disk is flush.ts alone.

import { BlockError, settle } from '../../../../base/index.js';
import type { CancelTimer, Clock, Eventually } from '../../../../base/index.js';
import { yieldToLoop } from '../../../../block/copy/index.js';
import { readRequest, writeRequest } from '../../../../block/index.js';
import type { Child, CorruptionReport, Node } from '../../../../block/index.js';
import type { ClusterCodec } from '../../../../codec/index.js';
import {
  entryHi,
  entryHostOffset,
  entryKind,
  entryKindOutside,
  entryLo,
  hasReservedL1Bits,
} from '../entries.js';
import type { EntryKind } from '../entries.js';
import { geometryOf, SECTOR_SIZE } from '../layout.js';
import type { Geometry } from '../layout.js';
import type {
  EntryWatcher,
  ImageOptions,
  PlacedSnapshots,
  Structures,
  TopTables,
} from './contracts.js';
import { CRYPT_PIECE_BYTES } from './data-cipher.js';
import type { DataCipher, DataPlace } from './data-cipher.js';
import { HeaderDoubt } from './header-doubt.js';
import { Leases, RangeLocks } from './leases.js';
import { Overlaps } from './overlap.js';
import type { HostRange } from './overlap.js';
import { DEFAULT_POLICIES } from './policies.js';
import type { Policies } from './policies.js';
import { TableCache } from './table-cache.js';
import type { Table } from './table-cache.js';

export class Qcow2Image {
  readonly label: string;
  version: number;
  geometry: Geometry;
  readonly clusterSize: number;
  codec: ClusterCodec;
  readonly structures: Structures;
  readonly leases = new Leases();
  readonly locks = new RangeLocks();
  readonly overlaps: Overlaps;
  /** It is not known which header is on disk. */
  readonly doubt = new HeaderDoubt();
  readonly l2: TableCache;
  readonly refcountBlocks: TableCache;
  /** Reservations not linked yet. */
  readonly watchers = new Set<EntryWatcher>();
  readonly dirtyL1Sectors = new Set<number>();
  readonly dirtyRefcountTableSectors = new Set<number>();
  /** Guest data is not in the image file but in a file of its own, at its guest offset. */
  readonly hasDataFile: boolean;
  readonly dataFileRaw: boolean;
  /** Of guest data; null where it is stored as it is. */
  readonly cipher: DataCipher | null;

  /** Grows whenever a host cluster became free: what was read of it before is stale. */
  freedCount = 0;
  /** Resolves when a corrupt bit on its way is written. */
  marked: Promise<void> = Promise.resolve();
  size: number;
  lazyRefcounts: boolean;
  headerIsLazy: boolean;
  readOnly: boolean;
  l1Offset: number;
  l1: Uint8Array;
  l1View: DataView;
  refcountTableOffset: number;
  refcountTable: Uint8Array;
  refcountTableView: DataView;
  snapshots: PlacedSnapshots;

  /** Something was written since the last sync: there is a reason to pass its event. */
  #unsynced = false;
  readonly #node: Pick<Node, 'backing' | 'name'>;
  readonly #file: Pick<Child, 'node'>;
  readonly #data: Pick<Child, 'node'>;
  readonly #report: (report: CorruptionReport) => void;
  readonly #clock: Clock | null;
  #policies: Policies;
  #cleaning: CancelTimer | null = null;
  #isMarked: boolean;
  /** Something is wrong that was told of and not marked. */
  #isTold = false;

  constructor(options: ImageOptions) {
    this.label = options.label;
    this.version = options.version;
    const { clusterBits, refcountOrder, extendedL2 = false } = options;
    const { dataFile = null, dataFileRaw = false } = options;
    this.hasDataFile = dataFile !== null;
    this.dataFileRaw = this.hasDataFile && dataFileRaw;
    this.cipher = options.cipher ?? null;
    this.geometry = {
      ...geometryOf(clusterBits, refcountOrder, extendedL2),
      dataFile: this.hasDataFile,
    };
    this.clusterSize = this.geometry.clusterSize;
    this.codec = options.codec ?? 'deflate';
    this.structures = options.structures;
    this.structures.onUnsure = (wayBack) => this.doubt.raise(wayBack);
    this.size = options.size;
    this.#isMarked = options.corrupt;
    this.lazyRefcounts = options.lazyRefcounts === true;
    this.headerIsLazy = options.headerIsLazy === true;
    this.readOnly = options.readOnly;
    this.#policies = options.policies ?? DEFAULT_POLICIES;
    this.#clock = options.clock ?? null;
    this.#node = options.node;
    this.#report = options.reportCorruption ?? ignore;
    this.#file = options.file;
    this.#data = dataFile ?? options.file;
    this.l1Offset = options.l1Offset;
    this.l1 = options.l1;
    this.l1View = viewOf(options.l1);
    this.refcountTableOffset = options.refcountTableOffset;
    this.refcountTable = options.refcountTable;
    this.refcountTableView = viewOf(options.refcountTable);
    this.overlaps = new Overlaps(this);
    this.overlaps.guarded = this.#policies.guarded;
    const { cryptHeader } = options.structures.header;
    if (cryptHeader !== null) this.overlaps.setCryptHeader(cryptHeader);
    this.snapshots = options.snapshots;
    this.replaceSnapshots(options.snapshots);
    const tableBytes = this.clusterSize;
    this.l2 = new TableCache({
      tableBytes,
      cacheBytes: this.#policies.l2CacheBytes,
      pieceBytes: () => this.#policies.l2PieceBytes,
      fill: (bytes, offset) => this.#loadTable('L2 table', bytes, offset),
    });
    this.refcountBlocks = new TableCache({
      tableBytes,
      cacheBytes: this.#policies.refcountCacheBytes,
      fill: (bytes, offset) => this.#loadTable('refcount block', bytes, offset),
    });
  }

  get policies(): Policies {
    return this.#policies;
  }

  /** Other policies; no request is running. */
  setPolicies(policies: Policies): void {
    const { l2CacheBytes, refcountCacheBytes } = this.#policies;
    if (policies.l2CacheBytes !== l2CacheBytes) this.l2.resize(policies.l2CacheBytes);
    if (policies.refcountCacheBytes !== refcountCacheBytes) {
      this.refcountBlocks.resize(policies.refcountCacheBytes);
    }
    this.#policies = policies;
    this.overlaps.guarded = policies.guarded;
    this.stopCleaning();
    this.#cleanLater();
  }

  /** For good when nothing is loaded any more. */
  stopCleaning(): void {
    this.#cleaning?.();
    this.#cleaning = null;
  }

  /** A timer is set only while there are tables in memory. */
  #cleanLater(): void {
    const { cleanIntervalMs } = this.#policies;
    if (this.#cleaning !== null || this.#clock === null || cleanIntervalMs === 0) return;
    this.#cleaning = this.#clock.afterIdle(cleanIntervalMs, () => {
      this.#cleaning = null;
      const l2Stays = this.l2.giveUpUnused();
      if (this.refcountBlocks.giveUpUnused() || l2Stays) this.#cleanLater();
    });
  }

  get name(): string {
    return this.#node.name;
  }

  /** Looked up each time: graph changes replace it. */
  get file(): Node {
    return this.#file.node;
  }

  /** Where guest data is that is not compressed: the file itself, or the external data file. */
  get data(): Node {
    return this.#data.node;
  }

  get backing(): Node | null {
    return this.#node.backing;
  }

  /**
   * Version 2, where zeroes are holes: not where the header names a backing file, be it opened or
   * not, for that would show through them later.
   */
  get holesStayZero(): boolean {
    return this.backing === null && this.structures.backingLink() === null;
  }

  /** Takes other top-level tables (after a repair, with nothing dirty). */
  adopt(tables: TopTables): void {
    this.l2.clear();
    this.refcountBlocks.clear();
    this.replaceL1(tables.l1Offset, tables.l1);
    this.replaceRefcountTable(tables.refcountTableOffset, tables.refcountTable);
    this.replaceSnapshots(tables.snapshots);
    this.overlaps.rebuild();
  }

  replaceSnapshots(table: PlacedSnapshots): void {
    this.snapshots = table;
    const l1Tables = table.snapshots.map(({ l1Offset, l1Entries }) => {
      return { offset: l1Offset, length: l1Entries * 8 };
    });
    this.overlaps.setSnapshots(table, l1Tables);
  }

  replaceL1(offset: number, bytes: Uint8Array): void {
    this.l1Offset = offset;
    this.l1 = bytes;
    this.l1View = viewOf(bytes);
    this.dirtyL1Sectors.clear();
  }

  replaceRefcountTable(offset: number, bytes: Uint8Array): void {
    this.refcountTableOffset = offset;
    this.refcountTable = bytes;
    this.refcountTableView = viewOf(bytes);
    this.dirtyRefcountTableSectors.clear();
  }

  /** Offset of the L2 table of L1 entry `index`, 0 when there is none. Throws on a bad entry. */
  l2Offset(index: number): number {
    if (index * 8 >= this.l1.length) return 0;
    const hi = this.l1View.getUint32(index * 8);
    const lo = this.l1View.getUint32(index * 8 + 4);
    const offset = entryHostOffset(hi, lo);
    if (hasReservedL1Bits(hi, lo) || offset % this.clusterSize !== 0) {
      throw this.l1EntryError(index, hi, lo);
    }
    return offset;
  }

  setL1(index: number, hostOffset: number): void {
    this.l1View.setUint32(index * 8, entryHi(hostOffset, true));
    this.l1View.setUint32(index * 8 + 4, entryLo(hostOffset, false));
    this.dirtyL1Sectors.add(Math.floor((index * 8) / SECTOR_SIZE));
    this.overlaps.addL2(hostOffset);
  }

  /** Forgets an L2 table and its entry; the caller frees the cluster. */
  dropL2(index: number, table: Table): void {
    this.l1View.setUint32(index * 8, 0);
    this.l1View.setUint32(index * 8 + 4, 0);
    this.dirtyL1Sectors.add(Math.floor((index * 8) / SECTOR_SIZE));
    this.l2.drop(table);
    this.overlaps.removeL2(table.offset);
  }

  setRefcountBlock(index: number, hostOffset: number): void {
    const view = this.refcountTableView;
    view.setUint32(index * 8, Math.floor(hostOffset / 0x1_0000_0000));
    view.setUint32(index * 8 + 4, hostOffset % 0x1_0000_0000 >>> 0);
    this.dirtyRefcountTableSectors.add(Math.floor((index * 8) / SECTOR_SIZE));
    this.overlaps.addRefcountBlock(hostOffset);
  }

  /** Forgets the L1 entries from `entries` on, as the header on disk has already. */
  shortenL1(entries: number): void {
    const dirty = [...this.dirtyL1Sectors];
    this.replaceL1(this.l1Offset, this.l1.slice(0, entries * 8));
    for (const sector of dirty) {
      if (sector * SECTOR_SIZE < this.l1.length) this.dirtyL1Sectors.add(sector);
    }
  }

  /** Forgets a block that the refcount table on disk does not name any more. */
  dropRefcountBlock(index: number, block: Table): void {
    this.refcountTableView.setUint32(index * 8, 0);
    this.refcountTableView.setUint32(index * 8 + 4, 0);
    this.refcountBlocks.drop(block);
    this.overlaps.removeRefcountBlock(block.offset);
    this.freedCount += 1;
  }

  entriesChanged(first: number, end: number): void {
    for (const watcher of this.watchers) watcher.entriesChanged(first, end);
  }

  /** What an L2 entry says. */
  entryKind(hi: number, lo: number): EntryKind {
    const kindOf = this.hasDataFile ? entryKindOutside : entryKind;
    return kindOf(hi, lo, this.version);
  }

  /** What guest data must not overwrite, by name; nothing in a data file is anything else. */
  dataOverlap(offset: number, length: number): string | null {
    return this.hasDataFile ? null : this.overlaps.hit(offset, length);
  }

  /**
   * Whether the last cluster is stored as a whole: others count on zeroes behind the image when
   * they make it larger. A data file ends with the image, unless zeroes have to be encrypted.
   */
  get storesTail(): boolean {
    if (!this.hasDataFile) return true;
    return this.cipher !== null && this.data.driverNode.hostFile?.kind !== 'block-device';
  }

  /** Reads the file child; what lies past its end reads as zeroes. */
  readFile(offset: number, buffer: Uint8Array): Eventually<void> {
    return readPadded(this.file, offset, buffer);
  }

  /** The same of guest data, after a point of the data path. */
  readData(point: string, place: DataPlace, buffer: Uint8Array): Eventually<void> {
    const held = this.point(point);
    const { hostOffset } = place;
    if (this.cipher !== null) return this.#readEncrypted(this.cipher, { ...place, held }, buffer);
    if (held instanceof Promise) return held.then(() => readPadded(this.data, hostOffset, buffer));
    return readPadded(this.data, hostOffset, buffer);
  }

  #readEncrypted(
    cipher: DataCipher,
    { held, ...place }: DataPlace & { readonly held: Eventually<void> },
    buffer: Uint8Array,
  ): Eventually<void> {
    const sector = cipher.sectorOf(place);
    const read = settle(held, () => readPadded(this.data, place.hostOffset, buffer));
    return settle(read, () => cipher.decrypt(buffer, sector));
  }

  writeFile(offset: number, buffer: Uint8Array): Eventually<void> {
    this.#unsynced = true;
    return this.file.write(writeRequest(offset, buffer));
  }

  /** Guest data, after a point of the data path where there is one. */
  writeData(point: string | null, place: DataPlace, buffer: Uint8Array): Eventually<void> {
    const held = point === null ? undefined : this.point(point);
    if (held instanceof Promise) {
      const { hostOffset, guestOffset } = place;
      return held.then(() => this.writeData(null, { hostOffset, guestOffset }, buffer));
    }
    this.#unsynced = true;
    if (this.cipher !== null) return this.#writeEncrypted(this.cipher, place, buffer);
    return this.data.write(writeRequest(place.hostOffset, buffer));
  }

  #writeEncrypted(cipher: DataCipher, place: DataPlace, buffer: Uint8Array): Eventually<void> {
    const sector = cipher.sectorOf(place);
    if (buffer.length > CRYPT_PIECE_BYTES) return this.#writePieces(cipher, { ...place }, buffer);
    return this.data.write(writeRequest(place.hostOffset, cipher.encrypted(buffer, sector)));
  }

  async #writePieces(cipher: DataCipher, place: DataPlace, buffer: Uint8Array): Promise<void> {
    for (let at = 0; at < buffer.length; at += CRYPT_PIECE_BYTES) {
      const part = buffer.subarray(at, at + CRYPT_PIECE_BYTES);
      const guestOffset = place.guestOffset + at;
      await this.#writeEncrypted(
        cipher,
        { hostOffset: place.hostOffset + at, guestOffset },
        part,
      );
      await yieldToLoop();
    }
  }

  /** A named point of the data path where nothing can wait, for a node below that is told. */
  event(name: string): void {
    const below = this.file.driverNode;
    // Told that nothing waits it gives no promise.
    if (below.debugEvent !== undefined) void below.debugEvent(name, false);
  }

  /** The same where the caller waits when the node below holds it. */
  point(name: string): Eventually<void> {
    const below = this.file.driverNode;
    return below.debugEvent === undefined ? undefined : below.debugEvent(name, true);
  }

  readFileAt(point: string, offset: number, buffer: Uint8Array): Eventually<void> {
    const held = this.point(point);
    if (held instanceof Promise) return held.then(() => this.readFile(offset, buffer));
    return this.readFile(offset, buffer);
  }

  writeFileAt(point: string, offset: number, buffer: Uint8Array): Eventually<void> {
    const held = this.point(point);
    if (held instanceof Promise) return held.then(() => this.writeFile(offset, buffer));
    return this.writeFile(offset, buffer);
  }

  /** Guest data and metadata written so far are on stable storage afterwards. */
  sync(): Eventually<void> {
    const point = this.#unsynced ? this.point('flush_to_disk') : undefined;
    this.#unsynced = false;
    return settle(point, () => {
      if (!this.hasDataFile) return this.file.flush();
      return settle(this.data.flush(), () => this.file.flush());
    });
  }

  /** Guest-visible error for what the image says; the image itself stays as it is. */
  corruptError(finding: string, errno = 'EIO'): BlockError {
    const text = `${this.label}: ${finding}`;
    return new BlockError('corrupt-image', text, { node: this.name, errno });
  }

  /** An L1 entry, of the image or of a snapshot, that names no L2 table and is not empty. */
  l1EntryError(index: number, hi: number, lo: number): BlockError {
    const finding = `L1 entry ${index}: L2 table offset ${hex(hi, lo)} is invalid`;
    const offset = entryHostOffset(hi, lo);
    // Reserved bits are no matter of the reference, which has no words for them.
    if (offset % this.clusterSize === 0) return this.corruptError(finding);
    const message = `L2 table offset ${shownHex(offset)} unaligned (L1 index: ${shownHex(index)})`;
    return this.entryError(finding, message);
  }

  /**
   * The same of an entry that cannot be: who can write to the image marks it corrupt, others tell
   * of the first one only. `message` is what they are told.
   */
  entryError(finding: string, message: string): BlockError {
    if (!this.readOnly) return this.markCorrupt(finding, { message });
    this.tell(message);
    return this.corruptError(finding);
  }

  /** Something is wrong that hinders nobody: told of the first time. */
  tell(message: string): void {
    if (this.#isTold || this.#isMarked) return;
    this.#isTold = true;
    this.#report({ message, fatal: false });
  }

  /**
   * A structure would be overwritten or contradicts another: no write goes on from here, and a
   * version 3 header says so. Gives the error to throw.
   */
  markCorrupt(finding: string, report: Omit<CorruptionReport, 'fatal'>): BlockError {
    if (!this.#isMarked) {
      this.#isMarked = true;
      this.#report({ ...report, fatal: true });
      if (this.version >= 3 && !this.readOnly) {
        this.marked = this.structures.patchHeader({ corrupt: true }).catch(ignore);
      }
    }
    return this.corruptError(finding);
  }

  /** The same of a write that would touch `hit`. */
  overlapError(hit: string, what: string, place: HostRange): BlockError {
    return this.markCorrupt(`${what} at offset ${place.offset} overlaps the ${hit}`, {
      message: `Preventing invalid write on metadata (overlaps with ${hit})`,
      offset: place.offset,
      size: place.length,
    });
  }

  /** No write goes on from here: a contradiction was found, or the header is in doubt. */
  get corrupt(): boolean {
    return this.#isMarked || this.doubt.isRaised;
  }

  /** All was read anew, and the header says whether the image is corrupt. */
  adoptMark(isMarked: boolean): void {
    this.#isMarked = isMarked;
    this.doubt.clear();
  }

  assertWritable(): void {
    if (this.corrupt) {
      const why = this.#isMarked
        ? 'image is marked corrupt'
        : 'a change of its header failed halfway';
      throw new BlockError('corrupt-image', `${this.label}: ${why}`, {
        node: this.name,
        errno: 'ENOMEDIUM',
      });
    }
    if (this.readOnly) {
      throw new BlockError('read-only', `${this.label}: image is read-only`, { node: this.name });
    }
  }

  #loadTable(what: 'L2 table' | 'refcount block', bytes: Uint8Array, offset: number) {
    if (offset + bytes.length > this.file.length) {
      throw this.corruptError(`${what} at offset ${offset} is beyond the end of the file`);
    }
    const hit = this.overlaps.structureAt(offset, what);
    if (hit !== null) throw this.corruptError(`${what} at offset ${offset} overlaps the ${hit}`);
    this.#cleanLater();
    return this.readFileAt(what === 'L2 table' ? 'l2_load' : 'refblock_load', offset, bytes);
  }
}

function readPadded(node: Node, offset: number, buffer: Uint8Array): Eventually<void> {
  const there = node.length - offset;
  if (there >= buffer.length) return node.read(readRequest(offset, buffer));
  if (there <= 0) {
    buffer.fill(0);
    return undefined;
  }
  buffer.fill(0, there);
  return node.read(readRequest(offset, buffer.subarray(0, there)));
}

export function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** A 64-bit field as messages print it. */
export function hex(hi: number, lo: number): string {
  const high = (hi >>> 0).toString(16);
  const low = (lo >>> 0).toString(16);
  return high === '0' ? `0x${low}` : `0x${high}${low.padStart(8, '0')}`;
}

/** A number as findings show it: zero without a prefix. */
export function shownHex(value: number): string {
  return value === 0 ? '0' : `0x${value.toString(16)}`;
}

/** The image is out of use already; a header that cannot be marked changes nothing. */
function ignore(): void {
  return undefined;
}
