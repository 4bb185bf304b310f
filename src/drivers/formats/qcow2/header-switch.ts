// SPDX-License-Identifier: Apache-2.0
// Changing the bitmaps extension so that a power cut leaves the old directory, the new one, or an
// autoclear bit that says that none is to be trusted, which only stands for "none" here.
//
// Only the write of one sector of 512 bytes is atomic. The new cluster 0 is laid out in several
// ways (the extension in its place or at the end; before the others; then with the feature name
// table shortened or dropped, for that is only a comfort), and the first that can be reached in
// safe steps is taken:
//   1. sectors that only change where the present header does not look;
//   2. the one sector that decides. Where the autoclear bit is about to be set, the extension may
//      change before it; where it is about to be cleared, after it: it is not looked at meanwhile.
// Between steps the file is flushed.

import { BlockError, hasBit, orBits, withoutBits } from '../../../base/index.js';
import { encodeBitmapsPlace, encodeExtensions, encodeHeaderFields } from './header.js';
import type { BitmapsPlace, HeaderExtension, Qcow2Header } from './header.js';
import { extensionVariants } from './header-update.js';
import { Autoclear, BITMAPS_BIT, ExtensionType, SECTOR_SIZE } from './layout.js';

export interface HeaderWrite {
  readonly offset: number;
  readonly bytes: Uint8Array;
}

export interface BitmapsSwitch {
  readonly header: Qcow2Header;
  /** Steps, with a flush after each. */
  readonly steps: readonly (readonly HeaderWrite[])[];
}

/** The eight bytes of the header that hold the autoclear bits. */
const AUTOCLEAR_OFFSET = 88;

/** How to name another directory or none. Kind `no-space` when there is no safe way. */
export function planBitmapsSwitch(
  header: Qcow2Header,
  cluster0: Uint8Array,
  place: BitmapsPlace | null,
): BitmapsSwitch {
  for (const extensions of arrangements(header, place)) {
    const next = laidOut(header, cluster0, { extensions, place });
    const steps = next === null ? null : stepsTo(header, cluster0, next);
    if (next !== null && steps !== null) return { header: next.header, steps };
  }
  throw new BlockError(
    'no-space',
    'The bitmaps extension cannot be put into the qcow2 header in safe steps ' +
      `(cluster size ${header.geometry.clusterSize})`,
  );
}

function* arrangements(
  header: Qcow2Header,
  place: BitmapsPlace | null,
): Generator<readonly HeaderExtension[]> {
  const type = ExtensionType.bitmaps;
  const others = header.extensions.filter((extension) => extension.type !== type);
  if (place === null) {
    yield* extensionVariants(others, header);
    return;
  }
  const wanted: HeaderExtension = { type, data: encodeBitmapsPlace(place) };
  const at = header.extensions.findIndex((extension) => extension.type === type);
  yield at < 0 ? [...others, wanted] : others.toSpliced(at, 0, wanted);
  yield* extensionVariants([wanted, ...others], header);
}

interface Layout {
  readonly header: Qcow2Header;
  readonly cluster0: Uint8Array;
}

/** Null where it does not fit. */
function laidOut(
  header: Qcow2Header,
  cluster0: Uint8Array,
  wanted: {
    readonly extensions: readonly HeaderExtension[];
    readonly place: BitmapsPlace | null;
  },
): Layout | null {
  const { extensions, place } = wanted;
  const stream = encodeExtensions(extensions);
  const end = header.fields.headerLength + stream.length;
  const { backingFileOffset: oldName, backingFileSize: nameSize, autoclearFeatures: bits } =
    header.fields;
  const isInPlace = oldName === 0 || oldName >= end;
  const close = Math.ceil(end / 8) * 8;
  // Within the first sector all changes at once; elsewhere no present byte is overwritten that the
  // header on disk refers to.
  const moved =
    close + nameSize <= SECTOR_SIZE
      ? close
      : Math.max(SECTOR_SIZE, end, header.extensionsEnd, oldName + nameSize);
  const nameOffset = isInPlace ? oldName : Math.ceil(moved / 8) * 8;
  if (Math.max(end, nameOffset + nameSize) > cluster0.length) return null;
  const fields = {
    ...header.fields,
    backingFileOffset: nameOffset,
    autoclearFeatures: place === null ? withoutBits(bits, BITMAPS_BIT) : orBits(bits, BITMAPS_BIT),
  };
  const bytes = cluster0.slice();
  bytes.set(encodeHeaderFields(fields), 0);
  bytes.set(stream, header.fields.headerLength);
  if (nameOffset !== oldName) {
    bytes.set(cluster0.subarray(oldName, oldName + nameSize), nameOffset);
  }
  const next = { ...header, fields, extensions, extensionsEnd: end, bitmaps: place };
  return { header: next, cluster0: bytes };
}

/** Null where more than one sector would decide. */
function stepsTo(
  header: Qcow2Header,
  cluster0: Uint8Array,
  next: Layout,
): BitmapsSwitch['steps'] | null {
  const free: HeaderWrite[] = [];
  const used: HeaderWrite[] = [];
  for (let offset = 0; offset < cluster0.length; offset += SECTOR_SIZE) {
    const bytes = next.cluster0.subarray(offset, offset + SECTOR_SIZE);
    const old = cluster0.subarray(offset, offset + SECTOR_SIZE);
    if (Buffer.compare(bytes, old) === 0) continue;
    (changesUsed(header, { offset, old, bytes }) ? used : free).push({ offset, bytes });
  }
  const before = free.length === 0 ? [] : [free];
  if (used.length <= 1) return used.length === 0 ? before : [...before, used];
  const [first, second] = used;
  if (used.length > 2 || first === undefined || second === undefined) return null;
  if (first.offset !== 0 || !changesAutoclearOnly(cluster0, first.bytes)) return null;
  const wasTrusted = hasBit(header.fields.autoclearFeatures, Autoclear.bitmaps);
  const isTrusted = next.header.bitmaps !== null;
  if (wasTrusted === isTrusted) return null;
  return isTrusted ? [...before, [second], [first]] : [[first], ...before, [second]];
}

function changesUsed(
  { extensionsEnd, fields }: Qcow2Header,
  sector: { readonly offset: number; readonly old: Uint8Array; readonly bytes: Uint8Array },
): boolean {
  const { offset, old, bytes } = sector;
  const name = fields.backingFileOffset;
  const nameEnd = name + fields.backingFileSize;
  for (let at = 0; at < bytes.length; at += 1) {
    if (bytes[at] === old[at]) continue;
    const place = offset + at;
    if (place < extensionsEnd || (place >= name && place < nameEnd)) return true;
  }
  return false;
}

function changesAutoclearOnly(old: Uint8Array, sector: Uint8Array): boolean {
  return sector.every(
    (byte, at) => byte === old[at] || (at >= AUTOCLEAR_OFFSET && at < AUTOCLEAR_OFFSET + 8),
  );
}
