// SPDX-License-Identifier: Apache-2.0
// From planned source parts and reserved target pieces to the steps of a lane task. Pure.

import { must } from '../../base/index.js';
import type { CipherKey, CipherPlace } from '../../crypto/index.js';
import type { HostFile } from '../../host/index.js';
import type { RangeCipher, ReservedPiece } from '../extent.js';
import type { SourcePart } from './chain.js';
import type { LanePart, LaneStep } from './lane-task.js';

export interface Span {
  readonly offset: number;
  readonly length: number;
}

/** A range of a node and the parts that it is made of. */
export interface PlannedRange extends Span {
  readonly parts: readonly SourcePart[];
  /** Where each part begins. */
  readonly starts: Float64Array;
}

export function plannedRange({ offset, length }: Span, parts: readonly SourcePart[]): PlannedRange {
  const starts = new Float64Array(parts.length);
  let start = offset;
  for (let index = 0; index < parts.length; index += 1) {
    starts[index] = start;
    start += must(parts[index], 'a part of the range').length;
  }
  return { offset, length, parts, starts };
}

/** The files and ciphers of a batch, each named once by its place. */
export class FileTable {
  readonly files: HostFile[] = [];
  readonly ciphers: CipherKey[] = [];

  indexOf(file: HostFile): number {
    const known = this.files.indexOf(file);
    return known >= 0 ? known : this.files.push(file) - 1;
  }

  cipherOf({ key, offset }: RangeCipher): CipherPlace {
    const known = this.ciphers.indexOf(key);
    return { index: known >= 0 ? known : this.ciphers.push(key) - 1, offset };
  }
}

/** The parts of a sub-range, cut to it. */
export function cutParts(range: PlannedRange, offset: number, length: number): SourcePart[] {
  const parts: SourcePart[] = [];
  const end = offset + length;
  for (let index = partAt(range, offset); index < range.parts.length; index += 1) {
    const part = must(range.parts[index], 'a part of the range');
    const position = must(range.starts[index], 'its start');
    if (position >= end) break;
    const from = Math.max(position, offset);
    const to = Math.min(position + part.length, end);
    if (from < to) parts.push(cutPart(part, from - position, to - from));
  }
  return parts;
}

/** The last part that begins at or before `offset`: a batch may be made of a thousand. */
function partAt({ starts }: PlannedRange, offset: number): number {
  let low = 0;
  let high = starts.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >>> 1;
    if (must(starts[middle], 'start of a part') <= offset) low = middle;
    else high = middle - 1;
  }
  return low;
}

function cutPart(part: SourcePart, skip: number, length: number): SourcePart {
  if (part.kind === 'zero') return { kind: 'zero', length };
  if (part.kind === 'unwritten') return { ...part, ...cutCipher(part.cipher, skip), length };
  if (part.kind === 'data') {
    const hostOffset = part.hostOffset + skip;
    return { ...part, ...cutCipher(part.cipher, skip), hostOffset, length };
  }
  return { ...part, skip: part.skip + skip, length };
}

function cutCipher<T extends RangeCipher | undefined>(
  cipher: T,
  skip: number,
): { readonly cipher: RangeCipher } | Record<never, never> {
  return cipher === undefined ? {} : { cipher: { ...cipher, offset: cipher.offset + skip } };
}

/** Ranges that hold data, rounded out to `unit`, merged, inside the range; the rest is zero. */
export function dataSpans(range: PlannedRange, unit: number): Span[] {
  const spans: { offset: number; length: number }[] = [];
  const rangeEnd = range.offset + range.length;
  let position = range.offset;
  for (const part of range.parts) {
    const partEnd = position + part.length;
    if (part.kind !== 'zero') {
      const start = Math.max(range.offset, Math.floor(position / unit) * unit);
      const end = Math.min(rangeEnd, Math.ceil(partEnd / unit) * unit);
      const last = spans.at(-1);
      if (last !== undefined && last.offset + last.length >= start) {
        last.length = Math.max(last.length, end - last.offset);
      } else spans.push({ offset: start, length: end - start });
    }
    position = partEnd;
  }
  return spans;
}

/** What of the range no span covers. */
export function gapsBetween(range: Span, spans: readonly Span[]): Span[] {
  const gaps: Span[] = [];
  let position = range.offset;
  for (const span of spans) {
    if (span.offset > position) gaps.push({ offset: position, length: span.offset - position });
    position = span.offset + span.length;
  }
  const end = range.offset + range.length;
  if (end > position) gaps.push({ offset: position, length: end - position });
  return gaps;
}

export function laneParts(parts: readonly SourcePart[], table: FileTable): LanePart[] {
  return parts.map((part): LanePart => {
    if (part.kind === 'zero') return part;
    const { length } = part;
    if (part.kind === 'unwritten') {
      return { kind: 'unwritten', length, cipher: table.cipherOf(part.cipher) };
    }
    const file = table.indexOf(part.file);
    if (part.kind === 'data') {
      const plain = { kind: 'data', length, file, offset: part.hostOffset } as const;
      return part.cipher === undefined
        ? plain
        : { ...plain, cipher: table.cipherOf(part.cipher) };
    }
    return {
      kind: 'compressed',
      length: part.length,
      file,
      offset: part.hostOffset,
      codec: part.codec,
      compressedLength: part.compressedLength,
      inflatedLength: part.inflatedLength,
      skip: part.skip,
    };
  });
}

/** Fills one reserved piece from the parts cut to it. */
export function pieceStep(
  parts: readonly SourcePart[],
  piece: ReservedPiece,
  context: {
    readonly table: FileTable;
    readonly zeroGranularity: number;
    readonly hostCopies?: boolean;
  },
): LaneStep {
  const { table, hostCopies = false } = context;
  const file = table.indexOf(piece.file);
  const target = { kind: 'file', file, offset: piece.hostOffset } as const;
  const { cipher } = piece;
  return {
    parts: laneParts(parts, table),
    length: piece.length,
    target: cipher === undefined ? target : { ...target, cipher: table.cipherOf(cipher) },
    zeroGranularity: piece.storesZeroes === true ? 0 : context.zeroGranularity,
    skipZeroes: true,
    hostCopies: hostCopies && cipher === undefined && parts.every(isStoredAsIs),
    deflate: false,
  };
}

function isStoredAsIs(part: SourcePart): boolean {
  return part.kind === 'zero' || (part.kind === 'data' && part.cipher === undefined);
}

export function allZero(parts: readonly SourcePart[]): boolean {
  return parts.every((part) => part.kind === 'zero');
}

