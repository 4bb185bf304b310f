// SPDX-License-Identifier: Apache-2.0
// Looking down a backing chain: what a range reads as, which layer decides it, and where its bytes
// lie in host files.
//
// Layers are nodes connected by backing links; filters between them are looked through. A layer
// that is shorter than its overlay reads as zeroes past its end, whatever lies below it.

import type { HostFile } from '../../host/index.js';
import type { Extent } from '../extent.js';
import type { Node } from '../node.js';

/** A part of a view: never `backing`, for every layer has been asked. */
export type SourcePart = Exclude<Extent, { kind: 'backing' }>;

/** The node that stores a layer: filters above it are skipped. */
export function skipFilters(node: Node): Node {
  let storing = node;
  while (storing.filtered !== null) storing = storing.filtered;
  return storing;
}

/** The layer below, looking through filters; null at the end of the chain. */
export function backingOf(node: Node): Node | null {
  return skipFilters(node).backing;
}

/** Every node of the view, filters included, from `top` down. */
export function* nodesOfView(top: Node): Generator<Node> {
  let node: Node | null = top;
  while (node !== null) {
    yield node;
    node = node.filtered ?? node.backing;
  }
}

/** Whether what `top` reads as may come from `layer`, which is not `top` itself. */
export function readsFrom(top: Node, layer: Node): boolean {
  const storing = skipFilters(layer);
  for (const node of nodesOfView(top)) if (node !== top && node === storing) return true;
  return false;
}

/**
 * Host ranges of what `node` reads as in [offset, offset + length), in order and without gaps;
 * null when some driver must see the data, or a file cannot be used by lanes.
 */
export async function planView(
  node: Node,
  offset: number,
  length: number,
): Promise<SourcePart[] | null> {
  const parts: SourcePart[] = [];
  const inside = Math.max(0, Math.min(length, node.length - offset));
  if (inside > 0) {
    const planned = node.planExtents(offset, inside);
    const extents = planned instanceof Promise ? await planned : planned;
    if (extents === null) return null;
    let position = offset;
    for (const extent of extents) {
      if (extent.kind === 'backing') {
        const below = await planBelow(node, position, extent.length);
        if (below === null) return null;
        for (const part of below) parts.push(part);
      } else {
        if (!lanesCanRead(extent)) return null;
        parts.push(extent);
      }
      position += extent.length;
    }
  }
  if (inside < length) parts.push({ kind: 'zero', length: length - inside });
  return parts;
}

async function planBelow(
  node: Node,
  offset: number,
  length: number,
): Promise<SourcePart[] | null> {
  const below = backingOf(node);
  if (below === null) return [{ kind: 'zero', length }];
  return planView(below, offset, length);
}

function lanesCanRead(extent: SourcePart): boolean {
  if (extent.kind === 'zero' || extent.kind === 'unwritten') return true;
  return lanesCanUse(extent.file);
}

/** O_DIRECT files need aligned memory, which lanes do not have. */
export function lanesCanUse(file: HostFile): boolean {
  return file.alignment === 1;
}

export interface ViewStatus {
  readonly zero: boolean;
  readonly length: number;
}

/** Whether the view reads as zeroes at `offset`, and how far that holds. */
export async function viewStatus(top: Node, offset: number, length: number): Promise<ViewStatus> {
  let remaining = length;
  for (let node: Node | null = top; node !== null; node = backingOf(node)) {
    if (offset >= node.length) return { zero: true, length: remaining };
    remaining = Math.min(remaining, node.length - offset);
    const asked = node.blockStatus(offset, remaining, true);
    const status = asked instanceof Promise ? await asked : asked;
    if (status.allocated) return { zero: status.zero, length: status.length };
    remaining = Math.min(remaining, status.length);
  }
  return { zero: true, length: remaining };
}

export interface LayerStatus {
  /** The layer that decides: `top` itself, one above `base`, or `base` and what is below it. */
  readonly where: 'top' | 'middle' | 'below';
  readonly length: number;
}

/**
 * Which layer decides what `top` reads as at `offset`; `base` (exclusive) null means the chain's
 * end. A middle layer that ends before `offset` decides too, for it hides what the base has there.
 */
export async function layerStatus(
  chain: { readonly top: Node; readonly base: Node | null },
  offset: number,
  length: number,
): Promise<LayerStatus> {
  let remaining = length;
  const stop = chain.base === null ? null : skipFilters(chain.base);
  for (let node: Node | null = skipFilters(chain.top); node !== null && node !== stop; ) {
    const where = node === skipFilters(chain.top) ? 'top' : 'middle';
    if (offset >= node.length) {
      return { where: stop === null ? 'below' : where, length: remaining };
    }
    remaining = Math.min(remaining, node.length - offset);
    const asked = node.blockStatus(offset, remaining, false);
    const status = asked instanceof Promise ? await asked : asked;
    if (status.allocated) return { where, length: status.length };
    remaining = Math.min(remaining, status.length);
    const below: Node | null = backingOf(node);
    node = below === null ? null : skipFilters(below);
  }
  return { where: 'below', length: remaining };
}

/**
 * Bytes of the shortest run of zeroes that is worth leaving out of a copy to the node; 0 when it
 * has no clusters. Less than a cluster (or subcluster) cannot be left out of one: it would be read,
 * merged and written again.
 */
export function leastHole({ info, limits }: Node): number {
  const cluster = info.clusterSize ?? 0;
  return limits.optimalZeroes > 0 ? Math.min(cluster, limits.optimalZeroes) : cluster;
}
