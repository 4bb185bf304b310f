// SPDX-License-Identifier: Apache-2.0
// How much of the host's space a node takes.
import { IMAGE_LIMITS } from '../base/index.js';
/** Bytes of the file that stores the node, or of all that do so together; backing files apart. */
export async function storedBytes(host, top) {
    let node = top;
    for (let depth = 0; depth < IMAGE_LIMITS.backingChainDepth; depth += 1) {
        const path = node.driverNode.hostFile?.path;
        if (path !== undefined)
            return (await host.stat(path))?.allocatedBytes ?? 0;
        const below = node.primary ?? node.filtered;
        if (below === null)
            break;
        node = below;
    }
    let sum = 0;
    for (const child of node.children.values())
        sum += await storedBytes(host, child.node);
    return sum;
}
