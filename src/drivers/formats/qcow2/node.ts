// SPDX-License-Identifier: Apache-2.0
// The open instance of a qcow2 image: joins metadata, data path and header behind DriverNode.
//
// Nothing here decides an order: metadata/flush.ts does. close() and prepareReadOnly() bring out
// everything, freed clusters included, so that a clean close leaves no leak. The backing link is
// rewritten only after all tables that rely on the old one are on stable storage.

import { BlockError, must, settle } from '../../../base/index.js';
import type { Eventually } from '../../../base/index.js';
import { RequestFlag } from '../../../block/index.js';
import type {
  AmendContext,
  AmendOptions,
  BackingLink,
  BitmapStore,
  BlockStatus,
  CheckResult,
  DriverInfo,
  DriverNode,
  Extent,
  Lease,
  Node,
  NodeLimits,
  OpenContext,
  Request,
  StatusRuns,
  TargetReservation,
  TruncateOptions,
} from '../../../block/index.js';
import type { ClusterCodec } from '../../../codec/index.js';
import { amendImage } from './amend/index.js';
import type { ImageKeyslots } from './encryption/index.js';
import { PersistentBitmaps } from './bitmaps/index.js';
import type { BitmapsHeader } from './bitmaps/index.js';
import {
  Compressor,
  cutDataFile,
  emptyDataFile,
  Eraser,
  growDataFile,
  Mapper,
  preallocate,
  Qcow2VmState,
  Reader,
  reserve,
  Writer,
} from './data/index.js';
import { l1EntriesFor } from './layout.js';
import {
  clearEntries,
  emptyImage,
  growL1,
  MetadataStore,
  shrinkImage,
  switchHeader,
} from './metadata/index.js';
import type { ImageOptions, Qcow2Image } from './metadata/index.js';
import type { Qcow2Options } from './options.js';
import { policiesOf } from './policies.js';
import { Qcow2Snapshots } from './snapshots/index.js';

/** Smallest unit of a request, in bytes. */
const REQUEST_ALIGNMENT = 1;
/** The same of encrypted data. */
const CRYPT_ALIGNMENT = 512;

/** Gives the instance for other options (see DriverNode.reopen). */
export type Qcow2Reopen = (
  current: Qcow2Node,
  context: OpenContext,
  options: Qcow2Options,
) => Promise<DriverNode>;

export class Qcow2Node implements DriverNode {
  readonly limits: NodeLimits;
  readonly #store: MetadataStore;
  readonly #reader: Reader;
  readonly #writer: Writer;
  readonly #eraser: Eraser;
  readonly #compressor: Compressor;
  readonly #mapper: Mapper;
  readonly #reopen: Qcow2Reopen;
  readonly internalSnapshots: Qcow2Snapshots;
  readonly vmState: Qcow2VmState;
  #closed = false;
  /** Due before the first change: the header still says what only a reader may believe. */
  #beforeChange: (() => Promise<void>) | null = null;
  #becoming: Promise<void> | null = null;
  /** What belongs to it once, beside marking the bitmaps. */
  #dueOnce: (() => Promise<void>) | null = null;
  #bitmaps: PersistentBitmaps | null = null;
  /** Of an image encrypted with LUKS. */
  keyslots: ImageKeyslots | null = null;

  constructor(options: ImageOptions, reopen: Qcow2Reopen) {
    this.#reopen = reopen;
    this.#store = new MetadataStore(options);
    this.#reader = new Reader(this.#store);
    this.#writer = new Writer(this.#store, this.#reader);
    this.#eraser = new Eraser(this.#store, this.#writer);
    this.#compressor = new Compressor(this.#store, this.#writer);
    this.#mapper = new Mapper(this.#store);
    this.internalSnapshots = new Qcow2Snapshots(this.#store, {
      becameWritable: () => this.becameWritable(),
      changed: () => this.#forget(),
      requireApplicable: () => this.#bitmaps?.requireNone(),
    });
    this.vmState = new Qcow2VmState(this.#store, () => this.#requireWritable());
    this.image.doubt.onWayBack = () => this.#makeDue();
    const { clusterSize, cipher } = this.image;
    this.limits = {
      requestAlignment: cipher === null ? REQUEST_ALIGNMENT : CRYPT_ALIGNMENT,
      maxTransfer: 0,
      optimalZeroes: this.image.geometry.subclusterSize,
      optimalDiscard: clusterSize,
    };
  }

  get bitmapStore(): BitmapStore {
    return must(this.#bitmaps, 'bitmaps of an open image');
  }

  /** Reads the persistent bitmaps, and gives the node those that it does not have yet. */
  async loadBitmaps(
    node: Node,
    { header, attach }: { readonly header: BitmapsHeader; readonly attach: boolean },
  ): Promise<void> {
    const bitmaps = new PersistentBitmaps({ store: this.#store, node, header });
    bitmaps.beforeChange = () => this.becameWritable();
    await bitmaps.load(attach);
    this.#bitmaps = bitmaps;
  }

  /** `work`, and marking the bitmaps as in use, are due before the first change. */
  makeDue(work: () => Promise<void>): void {
    this.#dueOnce = work;
    this.#makeDue();
  }

  #makeDue(): void {
    this.#beforeChange = async () => {
      await this.image.doubt.regain();
      await this.#dueOnce?.();
      this.#dueOnce = null;
      await this.#bitmaps?.markInUse();
    };
  }

  get image(): Qcow2Image {
    return this.#store.image;
  }

  get length(): number {
    return this.image.size;
  }

  read(request: Request): Eventually<void> {
    return this.#reader.read(request.offset, bufferOf(request));
  }

  write(request: Request): Eventually<void> {
    if (this.#beforeChange !== null) return this.#afterReady(() => this.write(request));
    const buffer = bufferOf(request);
    const written =
      (request.flags & RequestFlag.compressed) === 0
        ? this.#writer.write(request.offset, buffer)
        : this.#compressor.write(request.offset, buffer);
    return this.#finish(written, request);
  }

  get clusterCodec(): ClusterCodec {
    return this.image.codec;
  }

  /** One compressed cluster (see DriverNode.writeDeflated). */
  writeDeflated(offset: number, payload: Uint8Array): Eventually<void> {
    if (this.#beforeChange !== null) {
      return this.#afterReady(() => this.writeDeflated(offset, payload));
    }
    return this.#compressor.writeDeflated(offset, payload);
  }

  writeZeroes(request: Request): Eventually<void> {
    if (this.#beforeChange !== null) return this.#afterReady(() => this.writeZeroes(request));
    const zeroed = this.#eraser.writeZeroes(request.offset, request.length, request.flags);
    return this.#finish(zeroed, request);
  }

  discard(request: Request): Eventually<void> {
    if (this.#beforeChange !== null) return this.#afterReady(() => this.discard(request));
    return this.#finish(this.#eraser.discard(request.offset, request.length), request);
  }

  flush(): Eventually<void> {
    if (this.image.doubt.hasWayBack) return this.#afterReady(() => this.flush());
    const { flusher } = this.#store;
    return settle(this.image.point('flush_to_os'), () =>
      flusher.isIdle ? this.image.sync() : flusher.flush(true),
    );
  }

  blockStatus(offset: number, length: number, exact: boolean): Eventually<BlockStatus> {
    return this.#mapper.blockStatus(offset, length, exact);
  }

  statusRuns(offset: number, length: number, runs: StatusRuns): Eventually<void> {
    return this.#mapper.statusRuns(offset, length, runs);
  }

  planExtents(offset: number, length: number): Eventually<readonly Extent[] | null> {
    return this.#lanesFit(offset, length) ? this.#mapper.planExtents(offset, length) : null;
  }

  /** What is encrypted is planned and reserved in whole sectors. */
  #lanesFit(offset: number, length: number): boolean {
    const unit = this.image.cipher === null ? 1 : CRYPT_ALIGNMENT;
    return offset % unit === 0 && length % unit === 0;
  }

  lease(): Lease {
    const { leases, file, data, hasDataFile } = this.image;
    const epoch = leases.enter();
    const below = file.lease();
    const beside = hasDataFile ? data.lease() : null;
    return {
      release: () => {
        beside?.release();
        below.release();
        leases.leave(epoch);
      },
    };
  }

  reserve(offset: number, length: number): Eventually<TargetReservation | null> {
    if (!this.#lanesFit(offset, length)) return null;
    if (this.#beforeChange !== null) return this.#afterReady(() => this.reserve(offset, length));
    return reserve({ store: this.#store, eraser: this.#eraser }, offset, length);
  }

  /**
   * Another virtual size, a multiple of 512 bytes. What is new reads as zeroes whatever the backing
   * file holds there; what is cut off becomes free in the file. Refused, the image is as it was.
   */
  async truncate(size: number, options: TruncateOptions): Promise<void> {
    const { image } = this;
    await this.#requireWritable();
    const isRaw = image.dataFileRaw && options.preallocation === 'off';
    const preallocation = isRaw && size > image.size ? 'metadata' : options.preallocation;
    if (size % 512 !== 0) {
      throw new BlockError('invalid-option', 'The new size must be a multiple of 512');
    }
    if (image.version < 3 && image.snapshots.snapshots.length > 0) {
      const text = "Can't resize a v2 image which has snapshots";
      throw new BlockError('unsupported', text);
    }
    if (preallocation !== 'off' && image.cipher !== null && image.version < 3) {
      const text = 'Preallocation of encrypted images requires compatibility level 1.1 or above';
      throw new BlockError('unsupported', text);
    }
    if (size !== image.size) this.#bitmaps?.requireResizable();
    if (size < image.size) {
      if (preallocation === 'off') {
        await shrinkImage(this.#store, size);
        if (image.hasDataFile) await cutDataFile(image, size, options.exact);
        return;
      }
      const text = "Preallocation can't be used for shrinking an image";
      throw new BlockError('invalid-option', text);
    }
    if (size === image.size) return;
    const tables = l1EntriesFor(size, image.geometry);
    // What lies behind them belongs to the state of a machine.
    await clearEntries(this.#store, image.size, tables);
    await growL1(this.#store, tables);
    if (image.hasDataFile) {
      const growth = { ...options, preallocation };
      await growDataFile(image, {
        from: image.size,
        end: size,
        options: growth,
        // Clusters with subclusters get a place only: they read as zeroes.
        shows: isRaw && image.geometry.subclustersPerCluster === 1,
      });
    }
    await this.#hideNewRange(size);
    if (preallocation !== 'off') {
      const offset = Math.ceil(image.size / image.clusterSize) * image.clusterSize;
      await preallocate(this.#store, { offset, end: size, mode: preallocation });
    }
    await this.#store.flusher.flush(true);
    await switchHeader(image, { size });
    image.size = size;
  }

  backingLink(): BackingLink | null {
    return this.image.structures.backingLink();
  }

  async changeBacking(link: BackingLink | null): Promise<void> {
    if (this.image.dataFileRaw && link !== null) {
      throw new BlockError('invalid-option', 'Invalid argument', { node: this.image.name });
    }
    await this.becameWritable();
    await this.#store.flusher.flush(true);
    await this.image.structures.changeBacking(link);
  }

  async amend(options: AmendOptions, context: AmendContext): Promise<void> {
    await this.#requireWritable();
    const amended = {
      store: this.#store,
      writer: this.#writer,
      changed: () => this.#forget(),
      keyslots: this.keyslots,
    };
    await amendImage(amended, options, context);
  }

  async check(repair: 'none' | 'leaks' | 'all'): Promise<CheckResult> {
    if (repair !== 'none') await this.image.doubt.regain();
    const writable = !this.image.readOnly && !this.image.corrupt;
    if (writable) await this.#store.flusher.settle();
    if (writable && repair !== 'none') await this.becameWritable();
    const result = await this.image.structures.check(repair);
    if (repair !== 'none') {
      await this.#store.reload();
      this.#forget();
      this.image.adoptMark(this.image.structures.info().corrupt === true);
    }
    return result;
  }

  /** A crash leaves leaks at worst, and any part of the layer. */
  async makeEmpty(): Promise<void> {
    await this.#requireWritable();
    await emptyImage(this.#store);
    if (this.image.hasDataFile) await emptyDataFile(this.image);
  }

  info(): DriverInfo {
    return this.image.structures.info(this.#bitmaps?.facts);
  }

  /** Bitmaps are stored last: they are trusted from then on, and any change marks them again. */
  async prepareReadOnly(): Promise<void> {
    await this.#flushOut();
    if (this.image.readOnly || this.image.corrupt) return;
    try {
      await this.#bitmaps?.store();
      await this.#markClean();
    } finally {
      if (this.#bitmaps?.isTrusted === true) this.#makeDue();
    }
  }

  reopened(options: Readonly<Record<string, unknown>>): void {
    this.image.setPolicies(policiesOf(options as Qcow2Options, this.image));
  }

  /** The node's bitmaps can be changed as far as its image can. */
  takeOver(): void {
    this.#bitmaps?.setReadOnly(this.image.readOnly);
  }

  reopen(
    context: OpenContext,
    options: Readonly<Record<string, unknown>>,
  ): Promise<DriverNode> {
    return this.#reopen(this, context, options as Qcow2Options);
  }

  /** Once for all who ask meanwhile: it may read the whole image anew. */
  becameWritable(): Promise<void> {
    this.#becoming ??= this.#becomeWritable().finally(() => {
      this.#becoming = null;
    });
    return this.#becoming;
  }

  async #becomeWritable(): Promise<void> {
    await this.#beforeChange?.();
    this.#beforeChange = null;
  }

  async #requireWritable(): Promise<void> {
    await this.image.doubt.regain();
    this.image.assertWritable();
    await this.becameWritable();
  }

  async #afterReady<T>(work: () => Eventually<T>): Promise<T> {
    await this.becameWritable();
    return await work();
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    try {
      await this.#flushOut();
      await this.#markClean();
    } finally {
      this.image.cipher?.release();
      this.image.stopCleaning();
    }
  }

  async #flushOut(): Promise<void> {
    await this.image.marked;
    // Without a way back nothing can be written, and what is in memory is lost.
    await this.image.doubt.regain();
    if (this.image.readOnly || this.image.corrupt) return;
    await this.#store.flusher.flushAll();
  }

  async #markClean(): Promise<void> {
    if (!this.image.readOnly && !this.image.corrupt) await this.#store.flusher.settle();
  }

  /** Refcounts that a crash left behind are made anew. Kind `corrupt-image` where they cannot. */
  async repairDirty(tell: (line: string) => void): Promise<void> {
    if (this.image.structures.info().dirty !== true) return;
    const { checkErrors, failure, messages } = await this.image.structures.check('all');
    for (const line of messages) tell(line);
    await this.#store.reload();
    this.#forget();
    if (checkErrors === 0 && failure === undefined) return;
    throw new BlockError('corrupt-image', 'Could not repair dirty image', { errno: 'EIO' });
  }

  /** What was read before may be stale. */
  #forget(): void {
    this.#reader.reset();
    this.vmState.reset();
  }

  /** Makes what lies between the present size and `size` read as zeroes. */
  async #hideNewRange(size: number): Promise<void> {
    const { image } = this;
    const { clusterSize, backing } = image;
    const partial = image.size % clusterSize;
    const start = image.size + (partial === 0 ? 0 : clusterSize - partial);
    const old = image.size;
    const behind = backing === null ? 0 : Math.min(size, backing.length);
    if (image.version < 3) {
      if (behind > start) await this.#writer.writeZeroData(start, behind - start);
    } else if (behind > old && size > start) {
      // All that is new, as the reference does: a backing file that grows shows nothing either.
      await this.#eraser.zeroClusters(start, size - start);
    }
    // The rest of the last cluster may hold what a lane left there or what the backing file shows.
    if (partial !== 0) await this.#eraser.hide(old, Math.min(size, start) - old);
  }

  #finish(done: Eventually<void>, request: Request): Eventually<void> {
    if ((request.flags & RequestFlag.fua) === 0) return done;
    return settle(done, () => this.flush());
  }
}

function bufferOf(request: Request): Uint8Array {
  if (request.buffer === null) throw new BlockError('invalid-state', 'request has no buffer');
  return request.buffer;
}
