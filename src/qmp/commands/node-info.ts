// SPDX-License-Identifier: Apache-2.0
// What query-named-block-nodes says about one node.

import type { CommandResult, ImageInfoValue } from '../../api/index.js';
import { IMAGE_LIMITS } from '../../base/index.js';
import { headerName, infoBelow, internalSnapshotsOf } from '../../block/index.js';
import type { Node, SnapshotFacts } from '../../block/index.js';
import { storedBytes } from '../../engine/index.js';
import type { Engine } from '../../engine/index.js';
import { describeBitmaps } from './bitmap.js';

type NodeInfo = CommandResult<'query-named-block-nodes'>[number];
type SnapshotInfo = CommandResult<'blockdev-snapshot-delete-internal-sync'>;
type CacheOptions = { readonly direct?: boolean; readonly 'no-flush'?: boolean };

/** The node below a format or filter that stores its bytes in a host file, or null. */
function storageOf(node: Node): Node | null {
  let current: Node | null = node;
  for (let depth = 0; current !== null && depth < IMAGE_LIMITS.backingChainDepth; depth += 1) {
    if (current.driverNode.hostFile !== undefined) return current;
    current = current.primary ?? current.filtered;
  }
  return null;
}

/** What is read where the node itself has nothing: what it filters, or its backing image. */
function layerBelow(node: Node): Node | null {
  return node.filtered ?? node.backing;
}

function layersBelow(node: Node): number {
  let depth = 0;
  for (let below = layerBelow(node); below !== null; below = layerBelow(below)) depth += 1;
  return depth;
}

/** Bytes that host files take for each node that can tell. */
type StoredSizes = ReadonlyMap<Node, number>;

async function storedSizes({ graph }: Engine): Promise<StoredSizes> {
  const sizes = new Map<Node, number>();
  for (const node of graph.nodes) {
    // What is closed meanwhile is not asked for any more.
    if (graph.find(node.name) !== node) continue;
    const bytes = await storedBytes(graph.host, node);
    if (bytes !== null) sizes.set(node, bytes);
  }
  return sizes;
}

function imageInfo(node: Node, sizes: StoredSizes, nested: boolean): ImageInfoValue {
  const { info } = node;
  const size = sizes.get(node);
  const { clusterSize, dirty: told } = infoBelow(node);
  const link = node.backingLink();
  const format = link?.format ?? null;
  const full = link === null ? null : headerName(node, link.file);
  const storage = storageOf(node);
  const dirty = told === undefined && storage !== null ? false : (told ?? undefined);
  const backing = nested ? layerBelow(node) : null;
  const snapshots = internalSnapshotsOf(node)?.list() ?? [];
  return {
    'virtual-size': node.length,
    filename: node.filename,
    format: node.driver.name,
    ...(size === undefined ? {} : { 'actual-size': size }),
    ...(clusterSize === undefined ? {} : { 'cluster-size': clusterSize }),
    ...(info.encrypted === true ? { encrypted: true } : {}),
    ...(info.specific === undefined ? {} : { 'format-specific': info.specific }),
    ...(link === null ? {} : { 'backing-filename': link.file }),
    ...(format === null ? {} : { 'backing-filename-format': format }),
    ...(full === null ? {} : { 'full-backing-filename': full }),
    ...(dirty === undefined ? {} : { 'dirty-flag': dirty }),
    ...(snapshots.length === 0 ? {} : { snapshots: snapshots.map(describeSnapshot) }),
    ...(backing === null ? {} : { 'backing-image': imageInfo(backing, sizes, true) }),
  };
}

/** A snapshot within an image, as listings and its deletion give it. */
export function describeSnapshot(facts: SnapshotFacts): SnapshotInfo {
  return {
    ...(facts.icount === undefined ? {} : { icount: facts.icount }),
    'vm-clock-nsec': facts.vmClockNanoseconds,
    name: facts.name,
    'date-sec': facts.dateSeconds,
    'date-nsec': facts.dateNanoseconds,
    'vm-clock-sec': facts.vmClockSeconds,
    id: facts.id,
    'vm-state-size': facts.vmStateSize,
  };
}

/** All nodes, oldest last; with `flat` without what lies below each. */
export async function describeNodes(engine: Engine, flat: boolean): Promise<NodeInfo[]> {
  const sizes = await storedSizes(engine);
  // Then in one turn: a job that ends closes nodes.
  return [...engine.graph.nodes]
    .reverse()
    .map((node) => describeNode(node, { sizes, flat, threshold: engine.writeThresholds.of(node) }));
}

interface NodeQuery {
  readonly sizes: StoredSizes;
  readonly flat: boolean;
  readonly threshold: number;
}

function describeNode(node: Node, { sizes, flat, threshold }: NodeQuery): NodeInfo {
  const cache = (node.options['cache'] ?? {}) as CacheOptions;
  const detect = node.options['detect-zeroes'] as NodeInfo['detect_zeroes'] | undefined;
  const bitmaps = describeBitmaps(node);
  return {
    'node-name': node.name,
    drv: node.driver.name,
    file: node.filename,
    ...(node.backing === null ? {} : { backing_file: node.backing.filename }),
    backing_file_depth: flat ? 0 : layersBelow(node),
    ro: node.readOnly,
    encrypted: node.info.encrypted ?? false,
    detect_zeroes: detect ?? 'off',
    ...NO_THROTTLING,
    image: imageInfo(node, sizes, !flat),
    cache: {
      writeback: true,
      direct: cache.direct ?? false,
      'no-flush': cache['no-flush'] ?? false,
    },
    write_threshold: threshold,
    ...(bitmaps.length === 0 ? {} : { 'dirty-bitmaps': bitmaps }),
  };
}

const NO_THROTTLING = {
  bps: 0,
  bps_rd: 0,
  bps_wr: 0,
  iops: 0,
  iops_rd: 0,
  iops_wr: 0,
} as const;
