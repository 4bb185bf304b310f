// SPDX-License-Identifier: Apache-2.0
// Opening images as command lines do: by path, with a format or with probing.

import type { BlockNode } from '../block-node.js';
import type { OpenPolicy } from '../graph-api.js';
import type { BlockGraph } from '../graph.js';
import { rootContext, withPrefix } from './make-node.js';
import { openNamed } from './open.js';

export interface ImageRequest {
  readonly path: string;
  readonly format: string | null;
  readonly readOnly: boolean;
}

/** Errors begin with the path, as command lines print them. */
export async function openImage(
  graph: BlockGraph,
  request: ImageRequest,
  policy: OpenPolicy,
): Promise<BlockNode> {
  const inherited = { ...rootContext(policy), readOnly: request.readOnly };
  try {
    return await openNamed(graph, { path: request.path, format: request.format }, inherited);
  } catch (error) {
    throw withPrefix(`Could not open '${request.path}': `, error);
  }
}
