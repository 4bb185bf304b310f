// SPDX-License-Identifier: Apache-2.0
// Changing cluster 0 so that a power cut at any moment leaves the old header or the new one.
//
// Only the write of one 512-byte sector is atomic, so everything switches with the first sector:
// flag and table fields always fit there. A backing link may need more room than that:
//   1. the new name goes to a part of cluster 0 that neither the present name nor the present
//      extensions use (or into the first sector, when it fits), then flush;
//   2. ONE write of the first sector switches offset, size and extensions, then flush.
// Extensions that reach beyond the first sector must read the same there before and after the
// switch; otherwise the feature name table, which is only a comfort, is shortened or dropped (the
// reference drops it too when it lacks room). What still does not fit is refused, unchanged.

import { bit64, BlockError, IMAGE_LIMITS, NO_BITS, withoutBits } from '../../../base/index.js';
import type { BackingLink } from '../../../block/index.js';
import type { HeaderExtension, Qcow2Header } from './header.js';
import { encodeExtensions, encodeHeaderFields, featureNamesExtension } from './header.js';
import {
  Autoclear,
  CompressionType,
  EXTENSION_HEADER_SIZE,
  ExtensionType,
  FEATURE_ENTRY_SIZE,
  FEATURE_NAMES_MIN_CLUSTER,
  SECTOR_SIZE,
  V2_HEADER_LENGTH,
  V3_HEADER_LENGTH,
} from './layout.js';

export interface BackingChange {
  readonly header: Qcow2Header;
  /** Written and flushed first; null when the name lies in the first sector or there is none. */
  readonly name: { readonly offset: number; readonly bytes: Uint8Array } | null;
  /** Bytes from headerLength on, up to the end of the first sector. */
  readonly sectorTail: Uint8Array;
}

interface Placement {
  readonly offset: number;
  readonly inSector: boolean;
  /** The same bytes are there already. */
  readonly present: boolean;
}

/**
 * How to give the image another backing link. `cluster0` is the whole present cluster. Throws
 * kind `invalid-option` for a name that is too long and `no-space` when it cannot be switched
 * atomically.
 */
export function planBackingChange(
  header: Qcow2Header,
  cluster0: Uint8Array,
  link: BackingLink | null,
): BackingChange {
  const name = link === null ? null : Buffer.from(link.file, 'utf8');
  if (name !== null && (name.length === 0 || name.length > IMAGE_LIMITS.backingNameBytes)) {
    throw new BlockError(
      'invalid-option',
      name.length === 0
        ? 'The name of a backing file must not be empty'
        : `Backing file name too long (backing_file_size ${name.length})`,
    );
  }
  requireShortFormat(link?.format ?? null);
  for (const extensions of extensionVariants(withBackingFormat(header, link), header)) {
    const stream = encodeExtensions(extensions);
    const end = header.fields.headerLength + stream.length;
    if (!switchesInFirstSector(cluster0, header, stream)) continue;
    if (name === null) return change({ header, extensions, stream, end, link });
    const placement = placeName(header, cluster0, { name, end });
    if (placement !== null) {
      return change({ header, extensions, stream, end, link, name, placement });
    }
  }
  throw new BlockError(
    'no-space',
    `Backing file name of ${name?.length ?? 0} bytes cannot be put into the qcow2 header ` +
      `in one atomic step (cluster size ${header.geometry.clusterSize})`,
  );
}

/**
 * How to turn a header into that of the other version. Going down, features that version 2 lacks
 * must be gone; names of features, which nobody reads there, go. Going up they come, where there
 * is room. Throws as planBackingChange() does.
 */
export function planVersionChange(
  header: Qcow2Header,
  cluster0: Uint8Array,
  version: 2 | 3,
): BackingChange {
  const { geometry } = header;
  const others = header.extensions.filter(({ type }) => type !== ExtensionType.featureNames);
  const extensions =
    version === 3 && geometry.clusterSize >= FEATURE_NAMES_MIN_CLUSTER
      ? [...others, featureNamesExtension()]
      : others;
  const fields = {
    ...header.fields,
    version,
    headerLength: version === 2 ? V2_HEADER_LENGTH : V3_HEADER_LENGTH,
    incompatibleFeatures: NO_BITS,
    compatibleFeatures: NO_BITS,
    autoclearFeatures: NO_BITS,
    compressionType: CompressionType.deflate,
  };
  return planBackingChange({ ...header, fields, extensions }, cluster0, keptLink(header, cluster0));
}

/** How to name another external data file ('': none), or to drop the claim that it is raw. */
export function planDataFileChange(
  header: Qcow2Header,
  cluster0: Uint8Array,
  change: { readonly name: string | null; readonly dropsRaw: boolean },
): BackingChange {
  const type = ExtensionType.dataFile;
  const { name } = change;
  const others = header.extensions.filter((extension) => extension.type !== type);
  const named = { type, data: new Uint8Array(Buffer.from(name ?? '', 'utf8')) };
  const renamed = name === '' ? others : [named, ...others];
  const extensions = name === null ? header.extensions : renamed;
  const bits = header.fields.autoclearFeatures;
  const autoclearFeatures = change.dropsRaw
    ? withoutBits(bits, bit64(Autoclear.rawExternalData))
    : bits;
  const fields = { ...header.fields, autoclearFeatures };
  const dataFile = name === null ? header.dataFile : name || null;
  const changed = { ...header, fields, extensions, dataFile };
  return planBackingChange(changed, cluster0, keptLink(header, cluster0));
}

/** The present link, whose name must survive being written anew. */
function keptLink(header: Qcow2Header, cluster0: Uint8Array): BackingLink | null {
  const { backingFile, backingFormat, fields } = header;
  if (backingFile === null) return null;
  const from = fields.backingFileOffset;
  const stored = cluster0.subarray(from, from + fields.backingFileSize);
  if (Buffer.compare(stored, Buffer.from(backingFile, 'utf8')) !== 0) {
    const text = 'The name of the backing file is no text and cannot be moved within the header';
    throw new BlockError('unsupported', text);
  }
  return { file: backingFile, format: backingFormat };
}

/** Readers refuse a backing format of more than 15 bytes. Throws kind `invalid-option`. */
export function requireShortFormat(format: string | null): void {
  const bytes = Buffer.byteLength(format ?? '', 'utf8');
  if (bytes <= IMAGE_LIMITS.backingFormatBytes) return;
  const text = `Backing format name too long (backing_fmt ${bytes} bytes)`;
  throw new BlockError('invalid-option', text);
}

function withBackingFormat(header: Qcow2Header, link: BackingLink | null): HeaderExtension[] {
  const type = ExtensionType.backingFormat;
  const format = link?.format ?? null;
  if (format === null) return header.extensions.filter((extension) => extension.type !== type);
  const wanted = { type, data: new Uint8Array(Buffer.from(format, 'utf8')) };
  // In its old place, so that what follows keeps its place as well whenever the sizes agree.
  const at = header.extensions.findIndex((extension) => extension.type === type);
  if (at < 0) return [wanted, ...header.extensions];
  return header.extensions
    .map((extension, index) => (index === at ? wanted : extension))
    .filter((extension, index) => index === at || extension.type !== type);
}

/** The extensions as they are, then with a shortened feature table, then without it. */
export function* extensionVariants(
  extensions: readonly HeaderExtension[],
  header: Qcow2Header,
): Generator<readonly HeaderExtension[]> {
  yield extensions;
  const type = ExtensionType.featureNames;
  const table = extensions.find((extension) => extension.type === type);
  if (table === undefined) return;
  const rest = extensions.filter((extension) => extension.type !== type);
  const used = header.fields.headerLength + encodeExtensions(rest).length;
  const room = SECTOR_SIZE - used - EXTENSION_HEADER_SIZE;
  const entries = Math.floor(Math.min(room, table.data.length) / FEATURE_ENTRY_SIZE);
  if (entries > 0) {
    const data = table.data.subarray(0, entries * FEATURE_ENTRY_SIZE);
    yield extensions.map((extension) => (extension === table ? { type, data } : extension));
  }
  yield rest;
}

/** Whether writing the first sector alone turns the present extensions into `stream`. */
function switchesInFirstSector(
  cluster0: Uint8Array,
  header: Qcow2Header,
  stream: Uint8Array,
): boolean {
  const { headerLength } = header.fields;
  const end = headerLength + stream.length;
  if (end > cluster0.length) return false;
  const beyond = Math.max(SECTOR_SIZE, headerLength);
  if (end <= beyond) return true;
  const fresh = stream.subarray(beyond - headerLength);
  return Buffer.compare(fresh, cluster0.subarray(beyond, end)) === 0;
}

function placeName(
  header: Qcow2Header,
  cluster0: Uint8Array,
  wanted: { readonly name: Uint8Array; readonly end: number },
): Placement | null {
  const { name, end } = wanted;
  if (end + name.length <= SECTOR_SIZE) return { offset: end, inSector: true, present: false };
  const { backingFileOffset: oldOffset, backingFileSize: oldSize } = header.fields;
  const oldEnd = oldOffset === 0 ? 0 : oldOffset + oldSize;
  const same = cluster0.subarray(oldOffset, oldEnd);
  if (oldOffset >= Math.max(end, SECTOR_SIZE) && Buffer.compare(same, name) === 0) {
    return { offset: oldOffset, inSector: false, present: true };
  }
  const first = alignUp(Math.max(SECTOR_SIZE, end, header.extensionsEnd));
  for (const offset of [first, alignUp(Math.max(first, oldEnd))]) {
    const overlaps = offset < oldEnd && oldOffset < offset + name.length;
    if (!overlaps && offset + name.length <= cluster0.length) {
      return { offset, inSector: false, present: false };
    }
  }
  return null;
}

function alignUp(offset: number): number {
  return Math.ceil(offset / 8) * 8;
}

function change(parts: {
  readonly header: Qcow2Header;
  readonly extensions: readonly HeaderExtension[];
  readonly stream: Uint8Array;
  readonly end: number;
  readonly link: BackingLink | null;
  readonly name?: Uint8Array;
  readonly placement?: Placement;
}): BackingChange {
  const { header, stream, end, link, name, placement } = parts;
  const { headerLength } = header.fields;
  const sectorTail = new Uint8Array(Math.max(0, SECTOR_SIZE - headerLength));
  sectorTail.set(stream.subarray(0, sectorTail.length));
  let written: BackingChange['name'] = null;
  if (name !== undefined && placement !== undefined) {
    if (placement.inSector) sectorTail.set(name, placement.offset - headerLength);
    else if (!placement.present) written = { offset: placement.offset, bytes: name };
  }
  return {
    header: {
      ...header,
      fields: {
        ...header.fields,
        backingFileOffset: placement?.offset ?? 0,
        backingFileSize: name?.length ?? 0,
      },
      extensions: parts.extensions,
      extensionsEnd: end,
      backingFile: link?.file ?? null,
      backingFormat: link?.format ?? null,
    },
    name: written,
    sectorTail,
  };
}

/** The first sector as it is to be written: fixed fields over the present bytes, then the tail. */
export function buildFirstSector(cluster0: Uint8Array, change: BackingChange): Uint8Array {
  const sector = cluster0.slice(0, SECTOR_SIZE);
  sector.set(encodeHeaderFields(change.header.fields), 0);
  const { headerLength } = change.header.fields;
  if (headerLength < SECTOR_SIZE) sector.set(change.sectorTail, headerLength);
  return sector;
}
