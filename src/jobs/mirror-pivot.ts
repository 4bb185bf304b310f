// SPDX-License-Identifier: Apache-2.0
// What a mirror is to do, and its last step: the target takes the place of the source.
//
// The target gets its backing file first, then the users move in one turn of the graph. Whoever
// pivots holds the guests meanwhile, and has given up what its own edges and freezes forbid.

import { BlockError, errnoText, must, toBlockError } from '../base/index.js';
import type { Graph, Node } from '../block/index.js';
import { resolveBackingName } from '../block/index.js';
import { skipFilters } from '../block/copy/index.js';
import type { OnError } from './options.js';

export interface MirrorPlan {
  readonly type: 'mirror' | 'commit';
  readonly source: Node;
  readonly target: Node;
  /** `none`: only what is written from now on. */
  readonly sync: 'full' | 'top' | 'none';
  /** Layers from here on (inclusive) are not copied. */
  readonly base: Node | null;
  /** Nodes between the source and a target that lies below it. */
  readonly between: readonly Node[];
  /** Bytes that one dirty bit stands for. */
  readonly granularity: number;
  /** Bytes in flight at most; 0 = the default. */
  readonly bufferBytes: number;
  /** What the target holds is unknown: it is zeroed, or all of the source is copied. */
  readonly zeroTarget: boolean;
  readonly blocking: boolean;
  readonly unmap: boolean;
  readonly filterName: string | null;
  /** Node whose place the target takes; the source unless given. */
  readonly replaces: string | null;
  /** What the target gets as backing file when it takes the place. */
  readonly backing: 'as-it-is' | 'source' | 'source-backing' | 'as-header-says';
  /** The job opened the target: it lives on by its users alone. */
  readonly ownsTarget: boolean;
  readonly onSourceError: OnError;
  readonly onTargetError: OnError;
}

/**
 * Whether the place of `node` may be taken by what reads as the source does: it reads as the
 * source whatever happens, being that or what it filters, or is one vote of it and nothing else.
 */
export function canReplace(source: Node, node: Node): boolean {
  if (source === node) return true;
  const alike = source.driverNode.alike?.();
  if (alike === undefined) return source.filtered !== null && canReplace(source.filtered, node);
  if (alike.voting.includes(node)) return [...node.parents].length === 1;
  return alike.same.some((each) => canReplace(each, node));
}

/** The node whose place the target takes; throws when that would change what guests see. */
export function requireReplaceable(graph: Graph, plan: MirrorPlan): Node {
  const { source, target, replaces } = plan;
  const node = replaces === null ? source : graph.require(replaces);
  if (canReplace(source, node)) return node;
  throw new BlockError(
    'invalid-state',
    `Can no longer replace '${node.name}' by '${target.name}', because it can no longer be ` +
      'guaranteed that doing so would not lead to an abrupt change of visible data',
  );
}

/** Gives the users of `node` to the target, those of the job's own filter included. */
export async function takePlace(
  graph: Graph,
  plan: MirrorPlan,
  place: { readonly node: Node; readonly filter: Node },
): Promise<void> {
  const { source, target } = plan;
  const { node, filter } = place;
  await giveBacking(graph, plan);
  // A target that cannot follow stays as it is.
  await graph.setReadOnly(target, node.readOnly).catch(() => undefined);
  const without = node === source ? [filter] : [];
  await graph.replaceNode({ node, by: target, without });
}

async function giveBacking(graph: Graph, plan: MirrorPlan): Promise<void> {
  const { source, target, backing } = plan;
  if (backing === 'as-it-is') return;
  const overlay = skipFilters(target);
  if (backing === 'as-header-says') return openBacking(graph, overlay);
  const wanted = backing === 'source' ? source : skipFilters(source).backing;
  if (overlay.backing !== wanted) await graph.setBacking(overlay, wanted);
}

async function openBacking(graph: Graph, overlay: Node): Promise<void> {
  const link = overlay.backingLink();
  if (link === null || overlay.backing !== null) return;
  try {
    // Opened without a backing file it has no plain name of its own; its file has.
    const file = must(overlay.primary, 'an image has a file');
    const path = resolveBackingName(file.filename, link.file);
    const node = await graph.openImage(path, link.format, true);
    try {
      await graph.setBacking(overlay, node);
    } finally {
      await graph.close(node);
    }
  } catch (error) {
    throw new BlockError('invalid-option', errnoText('EINVAL'), { cause: toBlockError(error) });
  }
}
