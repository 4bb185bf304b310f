// SPDX-License-Identifier: Apache-2.0
// What a node tells of itself where it has no format of its own.
//
// Filters, and formats that are as their child is (raw), tell what the node below tells: cluster
// size, format facts, the dirty flag. Node.info itself stays the driver's own.
import { IMAGE_LIMITS } from '../base/index.js';
import { ChildRole } from './driver.js';
/** Facts of the first node from `node` down that has its own. */
export function infoBelow(node) {
    let current = node;
    for (let depth = 0; depth < IMAGE_LIMITS.backingChainDepth; depth += 1) {
        const below = current.filtered ?? (handsOn(current) ? current.primary : null);
        if (below === null)
            break;
        current = below;
    }
    return current.info;
}
function handsOn({ driver }) {
    return Object.values(driver.children).some(({ role, permissions }) => (role & ChildRole.primary) !== 0 && permissions === 'filter');
}
