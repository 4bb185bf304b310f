// SPDX-License-Identifier: Apache-2.0
// How much of the host's space a node takes.

import { IMAGE_LIMITS } from '../base/index.js';
import type { Node } from '../block/index.js';
import type { Host } from '../host/index.js';

/** Drivers that do not tell what is below them. */
const SILENT: ReadonlySet<string> = new Set(['blkdebug', 'blkverify']);

/**
 * Bytes of the file that stores the node, or of all that do so together; backing files apart. Null
 * where one of them cannot tell.
 */
export async function storedBytes(host: Host, top: Node): Promise<number | null> {
  let node = top;
  for (let depth = 0; depth < IMAGE_LIMITS.backingChainDepth; depth += 1) {
    if (SILENT.has(node.driver.name)) return null;
    const path = node.driverNode.hostFile?.path;
    if (path !== undefined) return (await host.stat(path))?.allocatedBytes ?? 0;
    const below = node.primary ?? node.filtered;
    if (below === null) break;
    node = below;
  }
  let sum = 0;
  for (const child of node.children.values()) {
    const part = await storedBytes(host, child.node);
    if (part === null) return null;
    sum += part;
  }
  return sum;
}
