// SPDX-License-Identifier: Apache-2.0
// What a node tells of itself where it has no format of its own.
//
// Filters, and formats that are as their child is (raw), tell what the node below tells: cluster
// size, format facts, the dirty flag; so they do with snapshots that the one below can keep.
// Node.info itself stays the driver's own.

import { IMAGE_LIMITS } from '../base/index.js';
import { ChildRole } from './driver.js';
import type { DriverInfo, InternalSnapshots, VmState } from './driver.js';
import type { Node } from './node.js';

/** Facts of the first node from `node` down that has its own. */
export function infoBelow(node: Node): DriverInfo {
  let current = node;
  for (let depth = 0; depth < IMAGE_LIMITS.backingChainDepth; depth += 1) {
    const below = current.filtered ?? (handsOn(current) ? current.primary : null);
    if (below === null) break;
    current = below;
  }
  return current.info;
}

function handsOn({ driver }: Node): boolean {
  return Object.values(driver.children).some(
    ({ role, permissions }) => (role & ChildRole.primary) !== 0 && permissions === 'filter',
  );
}

/** Where requests to `node` keep the state of a machine; null: nowhere. */
export function vmStateOf(node: Node): VmState | null {
  for (let at: Node | null = node; at !== null; at = at.filtered ?? at.primary) {
    const { vmState } = at.driverNode;
    if (vmState !== undefined) return vmState;
  }
  return null;
}

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
