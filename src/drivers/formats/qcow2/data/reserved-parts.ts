// SPDX-License-Identifier: Apache-2.0
// What linking a filled piece of a reservation means for images with subclusters: which clusters
// become data, which zeroes, which both, and where zeroes must be written first.
//
// A zero range covers subclusters as a whole or has its bytes written; so no subcluster is linked
// that holds old bytes. Past the end of the image nothing is linked. Pure: no I/O.

import { ALL_SUBCLUSTERS } from '../entries.js';
import type { Geometry } from '../layout.js';
import { maskWithin } from './subclusters.js';
import type { Span } from './subclusters.js';

/** Guest clusters that become data at `hostOffset`, or zeroes (null). */
export interface Run {
  readonly offset: number;
  readonly length: number;
  readonly hostOffset: number | null;
  /** Zeroes: what is not allocated stays so if nothing lies below. */
  readonly holes?: boolean;
  /** One cluster with subclusters of both kinds. */
  readonly masks?: { readonly zeroes: number; readonly allocated: number };
}

export interface WrittenPiece {
  /** Guest bytes, whole clusters but at the end of the image. */
  readonly offset: number;
  readonly length: number;
  readonly hostOffset: number;
  /** Offset in the piece and length, in turn, in order. */
  readonly zeroRanges: readonly number[];
  readonly holes: boolean;
}

export interface PieceParts {
  /** Offset in the piece and length of what zeroes are to be written to, in turn. */
  readonly fills: readonly number[];
  readonly runs: readonly Run[];
}

export function subclusterParts(piece: WrittenPiece, geometry: Geometry): PieceParts {
  const { clusterSize, subclusterSize } = geometry;
  const { fills, spans } = wholeSubclusters(piece, subclusterSize);
  const end = piece.offset + piece.length;
  const tail = end % subclusterSize;
  const isZeroTail = (spans.at(-1)?.end ?? 0) > end;
  if (tail !== 0 && !isZeroTail) fills.push(piece.length, subclusterSize - tail);
  const runs: Run[] = [];
  let next = 0;
  for (let start = piece.offset; start < end; start += clusterSize) {
    const cluster = start / clusterSize;
    const stop = Math.min(end, start + clusterSize);
    const covered = maskWithin({ start, end: stop }, cluster, geometry);
    let zeroes = 0;
    while (next < spans.length && (spans[next]?.end ?? 0) <= start) next += 1;
    for (let at = next; (spans[at]?.start ?? stop) < stop; at += 1) {
      zeroes |= maskWithin(spans[at] as Span, cluster, geometry);
    }
    addTo(runs, { piece, start, stop }, { covered, zeroes: (zeroes & covered) >>> 0 });
  }
  return { fills, runs };
}

/** The zero ranges as guest subclusters, and what of them covers none. */
function wholeSubclusters(
  { offset, length, zeroRanges }: WrittenPiece,
  unit: number,
): { fills: number[]; spans: Span[] } {
  const fills: number[] = [];
  const spans: Span[] = [];
  for (let index = 0; index < zeroRanges.length; index += 2) {
    const start = zeroRanges[index] ?? 0;
    const end = start + (zeroRanges[index + 1] ?? 0);
    const first = Math.ceil(start / unit) * unit;
    const last = end === length ? Math.ceil(end / unit) * unit : Math.floor(end / unit) * unit;
    if (first >= last) {
      fills.push(start, end - start);
      continue;
    }
    if (first > start) fills.push(start, first - start);
    if (end > last) fills.push(last, end - last);
    spans.push({ start: offset + first, end: offset + last });
  }
  return { fills, spans };
}

/** Adds one cluster, to the last run where it is of the same kind. */
function addTo(
  runs: Run[],
  place: { readonly piece: WrittenPiece; readonly start: number; readonly stop: number },
  { covered, zeroes }: { readonly covered: number; readonly zeroes: number },
): void {
  const { piece, start, stop } = place;
  const allocated = (covered & ~zeroes) >>> 0;
  const hostOffset = piece.hostOffset + start - piece.offset;
  if (allocated !== 0 && allocated !== ALL_SUBCLUSTERS) {
    const masks = { zeroes: piece.holes ? 0 : zeroes, allocated };
    runs.push({ offset: start, length: stop - start, hostOffset, masks });
    return;
  }
  const last = runs.at(-1);
  const isData = allocated !== 0;
  if (last !== undefined && last.masks === undefined && (last.hostOffset !== null) === isData) {
    runs[runs.length - 1] = { ...last, length: last.length + stop - start };
    return;
  }
  const run = { offset: start, length: stop - start };
  runs.push(isData ? { ...run, hostOffset } : { ...run, hostOffset: null, holes: piece.holes });
}
