// SPDX-License-Identifier: Apache-2.0
// blockdev-create for qcow2: an empty image, byte for byte as the reference lays it out.
//
// Layout: header, refcount table, first refcount block, L1 table, then the refcount blocks that
// the L1 table's own clusters need. Order: old header wiped and flushed, tables, flush, header,
// flush; a power cut before the last step leaves a file that is no qcow2 image.

import { BlockError, IMAGE_LIMITS, MAX_OFFSET, NO_BITS, orBits } from '../../../base/index.js';
import type { Bits64 } from '../../../base/index.js';
import type { CreateContext, Node } from '../../../block/index.js';
import { readRequest, RequestFlag, writeRequest, zeroRequest } from '../../../block/index.js';
import type { HeaderExtension } from './header.js';
import { encodeExtensions, encodeHeaderFields, featureNamesExtension } from './header.js';
import { requireShortFormat } from './header-update.js';
import {
  COMPRESSION_TYPE_BIT,
  CompressionType,
  DATA_FILE_BIT,
  DEFAULT_CLUSTER_SIZE,
  EXTENDED_L2_BIT,
  ExtensionType,
  FEATURE_NAMES_MIN_CLUSTER,
  geometryOf,
  l1EntriesFor,
  LAZY_REFCOUNTS_BIT,
  MAX_CLUSTER_BITS,
  MIN_CLUSTER_BITS,
  MIN_EXTENDED_CLUSTER_BITS,
  QCOW2_MAGIC,
  RAW_DATA_FILE_BIT,
  V2_HEADER_LENGTH,
  V3_HEADER_LENGTH,
} from './layout.js';
import type { Geometry, HeaderFields } from './layout.js';
import type { Qcow2CreateOptions } from './options.js';

/** Bit 63 of an entry, in its upper half. */
const COPIED = 0x8000_0000;

/** Everything that decides the bytes of an empty image. */
export interface EmptyImage {
  readonly size: number;
  readonly version: 2 | 3;
  readonly geometry: Geometry;
  readonly lazyRefcounts: boolean;
  /** Of clusters that will be written compressed. */
  readonly compressionType: number;
  readonly backingFile: string | null;
  readonly backingFormat: string | null;
  /** Other than `off`: every guest cluster has its data cluster. */
  readonly preallocation: Preallocation;
  /** Name of the external data file, as the header has it. */
  readonly dataFile: string | null;
  readonly dataFileRaw: boolean;
}

type Preallocation = 'off' | 'metadata' | 'falloc' | 'full';

interface Piece {
  readonly offset: number;
  readonly bytes: Uint8Array;
}

/** Validated options of `blockdev-create`; throws naming the option that cannot be honoured. */
export async function createQcow2(
  context: CreateContext,
  options: Qcow2CreateOptions,
): Promise<void> {
  // Opening the file may empty it: not for an image that cannot be.
  const checked = emptyImage(options);
  const file = await context.node(options.file);
  const data = checked.dataFile === null ? null : await context.node(options['data-file']);
  if (data === file) throw sameNode(file);
  const image = data === null ? checked : { ...checked, dataFile: data.filename };
  const { header, tables, fileLength } = layOut(image);
  const isOutside = image.preallocation === 'metadata' || data !== null;
  await makeRoom(file, fileLength, isOutside ? 'off' : image.preallocation);
  if (file.length < fileLength) {
    throw new BlockError('no-space', `The file is too small: ${fileLength} bytes are needed`);
  }
  // A block device or fixed-size node keeps its old bytes: no old header may be found meanwhile.
  await wipe(file, { offset: 0, length: image.geometry.clusterSize });
  await file.flush();
  if (data !== null) await sizeDataFile(data, image);
  for (const { offset, bytes } of tables) await file.write(writeRequest(offset, bytes));
  await file.flush();
  await file.write(writeRequest(0, header));
  await file.flush();
  await requireKept(file, header);
}

/** A block device stays as long as it is, and so does what cannot be resized. */
async function makeRoom(
  file: Node,
  length: number,
  preallocation: Exclude<Preallocation, 'metadata'>,
): Promise<void> {
  try {
    await file.truncate(0, { exact: false });
  } catch (error) {
    if (error instanceof BlockError && error.kind === 'unsupported') return;
    throw error;
  }
  await file.truncate(length, { exact: false, preallocation });
}

/** There are nodes that store nothing. */
async function requireKept(file: Node, header: Uint8Array): Promise<void> {
  const kept = new Uint8Array(header.length);
  await file.read(readRequest(0, kept));
  if (Buffer.compare(kept, header) === 0) return;
  throw new BlockError('corrupt-image', 'Image is not in qcow2 format', { node: file.name });
}

/** What the file holds already stays: it may be the disk that a raw data file is to show. */
async function sizeDataFile(data: Node, { size, preallocation }: EmptyImage): Promise<void> {
  const mode = preallocation === 'metadata' ? 'off' : preallocation;
  const isShorter = data.length > size;
  await data.truncate(size, { exact: false, preallocation: isShorter ? 'off' : mode });
  if (data.length < size) {
    throw new BlockError('no-space', `The data file is too small: ${size} bytes are needed`);
  }
  await data.flush();
}

function sameNode({ name }: Node): BlockError {
  return new BlockError(
    'permission',
    `Permission conflict on node '${name}': permissions 'resize' are both required and unshared ` +
      "by the children 'file' and 'data-file' of one image",
    { node: name },
  );
}

async function wipe(file: Node, range: { offset: number; length: number }): Promise<void> {
  await file.writeZeroes(zeroRequest(range.offset, range.length, RequestFlag.mayUnmap));
}

/** The options as facts of an image, every refusal in the reference's words where it has some. */
export function emptyImage(options: Qcow2CreateOptions): EmptyImage {
  refuseUnsupported(options);
  const version = options.version === 'v2' ? 2 : 3;
  const { size } = options;
  const clusterSize = options['cluster-size'] ?? DEFAULT_CLUSTER_SIZE;
  const clusterBits = Math.log2(clusterSize);
  if (
    !Number.isInteger(clusterBits) ||
    clusterBits < MIN_CLUSTER_BITS ||
    clusterBits > MAX_CLUSTER_BITS
  ) {
    throw invalid('Cluster size must be a power of two between 512 and 2048k');
  }
  if (size % 512 !== 0) throw invalid('Image size must be a multiple of 512 bytes');
  const extendedL2 = options['extended-l2'] === true;
  if (extendedL2) requireRoomForBitmaps(version, clusterBits);
  const refcountBits = options['refcount-bits'] ?? 16;
  const refcountOrder = Math.log2(refcountBits);
  if (!Number.isInteger(refcountOrder) || refcountOrder > 6) {
    throw invalid('Refcount width must be a power of two and may not exceed 64 bits');
  }
  if (version < 3 && refcountBits !== 16) {
    throw invalid(
      'Different refcount widths than 16 bits require compatibility level 1.1 or above ' +
        '(use version=v3 or greater)',
    );
  }
  const lazyRefcounts = options['lazy-refcounts'] === true;
  if (version < 3 && lazyRefcounts) {
    throw invalid(
      'Lazy refcounts only supported with compatibility level 1.1 and above ' +
        '(use version=v3 or greater)',
    );
  }
  const compressionType = compressionTypeOf(options, version);
  const geometry = geometryOf(clusterBits, refcountOrder, extendedL2);
  if (size > MAX_OFFSET || l1EntriesFor(size, geometry) * 8 > IMAGE_LIMITS.qcow2L1Bytes) {
    throw new BlockError(
      'too-large',
      "The image size is too large for file format 'qcow2' (try using a larger cluster size)",
    );
  }
  const external = dataFileOptions(options, version);
  const preallocation = options.preallocation ?? 'off';
  if (preallocation !== 'off') {
    if (options['backing-file'] !== undefined && !extendedL2) {
      throw invalid(
        'Backing file and preallocation can only be used at the same time ' +
          'if extended_l2 is on',
      );
    }
    if (external.dataFile === null) refuseBeyondTable(size, geometry);
  }
  const facts = { size, version, lazyRefcounts, compressionType, ...external } as const;
  return {
    ...facts,
    ...backing(options),
    geometry: { ...geometry, dataFile: external.dataFile !== null },
    // What a raw data file holds must be seen: every cluster is data.
    preallocation: external.dataFileRaw && preallocation === 'off' ? 'metadata' : preallocation,
  };
}

function dataFileOptions(
  options: Qcow2CreateOptions,
  version: 2 | 3,
): Pick<EmptyImage, 'dataFile' | 'dataFileRaw'> {
  const dataFileRaw = options['data-file-raw'] === true;
  const isExternal = options['data-file'] !== undefined;
  if (dataFileRaw && !isExternal) throw invalid('data-file-raw requires data-file');
  if (dataFileRaw && options['backing-file'] !== undefined) {
    throw invalid('Backing file and data-file-raw cannot be used at the same time');
  }
  if (isExternal && version < 3) {
    throw invalid(
      'External data files are only supported with compatibility level 1.1 and above ' +
        '(use version=v3 or greater)',
    );
  }
  // The name is that of the node, which is there only once the file may be touched.
  return { dataFile: isExternal ? '' : null, dataFileRaw };
}

function compressionTypeOf(options: Qcow2CreateOptions, version: 2 | 3): number {
  if (options['compression-type'] !== 'zstd') return CompressionType.deflate;
  if (version >= 3) return CompressionType.zstd;
  throw invalid(
    'Non-zlib compression type is only supported with compatibility level 1.1 and above ' +
      '(use version=v3 or greater)',
  );
}

/** Extended L2 entries exist since version 3, and subclusters have at least a sector. */
function requireRoomForBitmaps(version: 2 | 3, clusterBits: number): void {
  if (version < 3) {
    throw invalid(
      'Extended L2 entries are only supported with compatibility level 1.1 and above ' +
        '(use version=v3 or greater)',
    );
  }
  if (clusterBits >= MIN_EXTENDED_CLUSTER_BITS) return;
  throw invalid(
    'Extended L2 entries are only supported with cluster sizes of at least ' +
      `${2 ** MIN_EXTENDED_CLUSTER_BITS} bytes`,
  );
}

/** The refcount table of a full image must not be larger than one that can be opened. */
function refuseBeyondTable(size: number, geometry: Geometry): void {
  const entries = Math.ceil(size / geometry.clusterSize / geometry.refcountBlockEntries);
  if (entries * 8 * 2 <= IMAGE_LIMITS.qcow2RefcountTableBytes) return;
  throw new BlockError(
    'too-large',
    "The image size is too large to be preallocated in format 'qcow2' " +
      '(try using a larger cluster size)',
  );
}

function backing(
  options: Qcow2CreateOptions,
): Pick<EmptyImage, 'backingFile' | 'backingFormat'> {
  const backingFile = options['backing-file'] ?? null;
  const backingFormat = options['backing-fmt'] ?? null;
  if (backingFormat !== null && backingFile === null) {
    throw invalid('Backing format cannot be used without backing file');
  }
  requireShortFormat(backingFormat);
  if (backingFile !== null) {
    const bytes = Buffer.byteLength(backingFile, 'utf8');
    if (bytes > IMAGE_LIMITS.backingNameBytes) throw invalid('Backing file name too long');
  }
  return { backingFile, backingFormat };
}

function refuseUnsupported(options: Qcow2CreateOptions): void {
  const refuse = (name: string, value: unknown): never => {
    throw new BlockError(
      'unsupported',
      `Creating qcow2 images with ${name} '${String(value)}' is not supported`,
    );
  };
  if (options.encrypt !== undefined) refuse('encrypt', 'luks');
}

function invalid(message: string): BlockError {
  return new BlockError('invalid-option', message);
}

/** The bytes of an empty image: header cluster, tables, and the length of the file. */
export function layOut(image: EmptyImage): {
  header: Uint8Array;
  /** Made one by one: those of a preallocated image may be many. */
  tables: Iterable<Piece>;
  fileLength: number;
} {
  const { geometry } = image;
  const { clusterSize } = geometry;
  const l1Bytes = l1EntriesFor(image.size, geometry) * 8;
  const l1Clusters = Math.ceil(l1Bytes / clusterSize);
  const dataClusters =
    image.preallocation === 'off' ? 0 : Math.ceil(image.size / clusterSize);
  const l2Clusters = Math.ceil(dataClusters / geometry.l2Entries);
  const ownClusters = l2Clusters + (geometry.dataFile ? 0 : dataClusters);
  const places = placeTables(geometry, l1Clusters + ownClusters);
  const { tableClusters, l1Cluster, blocks, lastBlock, endCluster } = places;
  const l1TableOffset = l1Bytes === 0 ? 0 : l1Cluster * clusterSize;
  const header = encodeHeaderCluster(image, { l1TableOffset, tableClusters });
  const l2Cluster = l1Cluster + l1Clusters;
  const firstData = geometry.dataFile ? 0 : l2Cluster + l2Clusters;
  const data = { l2Cluster, l2Clusters, firstData, dataClusters };
  function* tables(): Generator<Piece> {
    const entries = [...blocks].map(([index, cluster]) => [index, cluster * clusterSize] as const);
    yield { offset: clusterSize, bytes: refcountTable(tableClusters * clusterSize, entries) };
    for (const [index, offset] of entries) {
      yield { offset, bytes: refcountBlock(geometry, index, endCluster) };
    }
    if (l1Bytes > 0) yield { offset: l1TableOffset, bytes: l1Table(l1Bytes, data, clusterSize) };
    yield* l2Tables(geometry, data);
  }
  // Without data clusters the file ends with the last byte written, as the reference leaves it.
  const blocksEnd = (lastBlock + 1) * clusterSize;
  const l1End = dataClusters === 0 ? l1TableOffset + l1Bytes : 0;
  const dataEnd = dataClusters === 0 ? 0 : (l2Cluster + ownClusters) * clusterSize;
  const fileLength = Math.max(blocksEnd, l1End, dataEnd);
  return { header, tables: tables(), fileLength };
}

/** L2 tables, then data clusters or none in this file; none of either unless preallocated. */
interface DataPlaces {
  readonly l2Cluster: number;
  readonly l2Clusters: number;
  readonly firstData: number;
  readonly dataClusters: number;
}

function refcountTable(
  length: number,
  entries: readonly (readonly [index: number, offset: number])[],
): Uint8Array {
  const bytes = new Uint8Array(length);
  const view = new DataView(bytes.buffer);
  for (const [index, offset] of entries) {
    view.setUint32(index * 8, Math.floor(offset / 0x1_0000_0000));
    view.setUint32(index * 8 + 4, offset % 0x1_0000_0000);
  }
  return bytes;
}

function l1Table(length: number, data: DataPlaces, clusterSize: number): Uint8Array {
  const view = new DataView(new ArrayBuffer(length));
  for (let index = 0; index < data.l2Clusters; index += 1) {
    setOwned(view, index * 8, (data.l2Cluster + index) * clusterSize);
  }
  return new Uint8Array(view.buffer);
}

function* l2Tables(geometry: Geometry, data: DataPlaces): Generator<Piece> {
  const { clusterSize, l2Entries, l2EntryBytes } = geometry;
  for (let table = 0; table < data.l2Clusters; table += 1) {
    const view = new DataView(new ArrayBuffer(clusterSize));
    const first = table * l2Entries;
    const count = Math.min(l2Entries, data.dataClusters - first);
    for (let index = 0; index < count; index += 1) {
      // With a bitmap of subclusters none of them is allocated: what is behind shows through.
      setOwned(view, index * l2EntryBytes, (data.firstData + first + index) * clusterSize);
    }
    const bytes = new Uint8Array(view.buffer);
    yield { offset: (data.l2Cluster + table) * clusterSize, bytes };
  }
}

/** At byte `at`, an L1 or L2 entry for a cluster with refcount one. */
function setOwned(view: DataView, at: number, hostOffset: number): void {
  view.setUint32(at, (Math.floor(hostOffset / 0x1_0000_0000) | COPIED) >>> 0);
  view.setUint32(at + 4, hostOffset % 0x1_0000_0000);
}

interface TablePlaces {
  readonly tableClusters: number;
  readonly l1Cluster: number;
  /** Refcount block index → cluster, in the order in which they were allocated. */
  readonly blocks: ReadonlyMap<number, number>;
  /** Cluster of the refcount block that lies last. */
  readonly lastBlock: number;
  /** All clusters below are in use. */
  readonly endCluster: number;
}

/** With the smallest refcount table that has an entry for each block that it brings about. */
function placeTables(geometry: Geometry, runClusters: number): TablePlaces {
  const entriesPerCluster = geometry.clusterSize / 8;
  for (let tableClusters = 1; ; ) {
    const { highest, ...places } = placeBlocks(geometry, { tableClusters, runClusters });
    // A larger table never needs fewer blocks, so that no smaller one will do either.
    const needed = Math.floor(highest / entriesPerCluster) + 1;
    if (needed <= tableClusters) return places;
    tableClusters = needed;
  }
}

/**
 * Places the tables as an allocator does that takes the run of clusters that begins with the L1
 * table (and goes on with L2 tables and data, when preallocated) in one piece first and
 * then, cluster by cluster, the refcount blocks that are missing to count them (a new block may
 * itself need another one). `highest` is the largest index of a block.
 */
function placeBlocks(
  geometry: Geometry,
  { tableClusters, runClusters }: { tableClusters: number; runClusters: number },
): TablePlaces & { readonly highest: number } {
  const perBlock = geometry.refcountBlockEntries;
  const firstBlock = 1 + tableClusters;
  const l1Cluster = firstBlock + 1;
  const runEnd = l1Cluster + runClusters;
  const blocks = new Map<number, number>();
  let highest = Math.floor(firstBlock / perBlock);
  let next = runEnd;
  const cover = (cluster: number): void => {
    const index = Math.floor(cluster / perBlock);
    if (blocks.has(index)) return;
    const place = next;
    next += 1;
    highest = Math.max(highest, index);
    blocks.set(index, place);
    cover(place);
  };
  blocks.set(highest, firstBlock);
  for (let cluster = 0; cluster < runEnd; cluster += perBlock) cover(cluster);
  const lastBlock = next === runEnd ? firstBlock : next - 1;
  return { tableClusters, l1Cluster, blocks, lastBlock, endCluster: next, highest };
}

/** A refcount block in which every cluster below `endCluster` has refcount one. */
function refcountBlock(geometry: Geometry, index: number, endCluster: number): Uint8Array {
  const bytes = new Uint8Array(geometry.clusterSize);
  const first = index * geometry.refcountBlockEntries;
  const count = Math.min(geometry.refcountBlockEntries, endCluster - first);
  const { refcountBits } = geometry;
  for (let entry = 0; entry < count; entry += 1) {
    if (refcountBits >= 8) {
      const width = refcountBits / 8;
      bytes[entry * width + width - 1] = 1;
    } else {
      const bit = entry * refcountBits;
      bytes[bit >>> 3] = (bytes[bit >>> 3] ?? 0) | (1 << (bit & 7));
    }
  }
  return bytes;
}

function encodeHeaderCluster(
  image: EmptyImage,
  places: { readonly l1TableOffset: number; readonly tableClusters: number },
): Uint8Array {
  const { geometry, version } = image;
  const headerLength = version === 2 ? V2_HEADER_LENGTH : V3_HEADER_LENGTH;
  const name = Buffer.from(image.backingFile ?? '', 'utf8');
  const room = geometry.clusterSize - headerLength - name.length;
  const stream = encodeExtensions(extensionsOf(image));
  if (stream.length > room) {
    throw invalid(`Backing file name too long (backing_file_size ${name.length})`);
  }
  const nameOffset = headerLength + stream.length;
  const fields: HeaderFields = {
    magic: QCOW2_MAGIC,
    version,
    backingFileOffset: name.length === 0 ? 0 : nameOffset,
    backingFileSize: name.length,
    clusterBits: geometry.clusterBits,
    size: image.size,
    cryptMethod: 0,
    l1Size: l1EntriesFor(image.size, geometry),
    l1TableOffset: places.l1TableOffset,
    refcountTableOffset: geometry.clusterSize,
    refcountTableClusters: places.tableClusters,
    nbSnapshots: 0,
    snapshotsOffset: 0,
    incompatibleFeatures: incompatibleFeaturesOf(image),
    compatibleFeatures: image.lazyRefcounts ? LAZY_REFCOUNTS_BIT : NO_BITS,
    autoclearFeatures: image.dataFileRaw ? RAW_DATA_FILE_BIT : NO_BITS,
    refcountOrder: geometry.refcountOrder,
    headerLength,
    compressionType: image.compressionType,
  };
  const bytes = new Uint8Array(geometry.clusterSize);
  bytes.set(encodeHeaderFields(fields), 0);
  bytes.set(stream, headerLength);
  bytes.set(name, nameOffset);
  return bytes;
}

function incompatibleFeaturesOf({ geometry, compressionType }: EmptyImage): Bits64 {
  let bits = geometry.l2EntryBytes === 16 ? EXTENDED_L2_BIT : NO_BITS;
  if (geometry.dataFile) bits = orBits(bits, DATA_FILE_BIT);
  return compressionType === CompressionType.deflate ? bits : orBits(bits, COMPRESSION_TYPE_BIT);
}

function extensionsOf(image: EmptyImage): HeaderExtension[] {
  const extensions: HeaderExtension[] = [];
  if (image.backingFormat !== null) {
    const data = new Uint8Array(Buffer.from(image.backingFormat, 'utf8'));
    extensions.push({ type: ExtensionType.backingFormat, data });
  }
  if (image.dataFile !== null) {
    const data = new Uint8Array(Buffer.from(image.dataFile, 'utf8'));
    extensions.push({ type: ExtensionType.dataFile, data });
  }
  if (image.version >= 3 && image.geometry.clusterSize >= FEATURE_NAMES_MIN_CLUSTER) {
    extensions.push(featureNamesExtension());
  }
  return extensions;
}
