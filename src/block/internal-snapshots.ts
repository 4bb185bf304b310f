// SPDX-License-Identifier: Apache-2.0
// Who keeps the snapshots of a node: itself, or the one that it only stands before.

import { IMAGE_LIMITS } from '../base/index.js';
import { ChildRole } from './driver.js';
import type { InternalSnapshots } from './driver.js';
import type { Node } from './node.js';

const HOLDS = ChildRole.data | ChildRole.metadata | ChildRole.filtered;

/** Null: neither the node nor what it passes everything to can keep snapshots within an image. */
export function internalSnapshotsOf(node: Node): InternalSnapshots | null {
  let current = node;
  for (let depth = 0; depth < IMAGE_LIMITS.backingChainDepth; depth += 1) {
    const own = current.driverNode.internalSnapshots;
    if (own !== undefined) return own;
    const below = current.filtered ?? current.primary;
    if (below === null) return null;
    // What lies in several children is not kept by one of them.
    for (const { role, node: child } of current.children.values()) {
      if (child !== below && (role & HOLDS) !== 0) return null;
    }
    current = below;
  }
  return null;
}
