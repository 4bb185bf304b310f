// SPDX-License-Identifier: Apache-2.0
// Header and key material at the start of the node that they lie in, and no further than that.

import { BlockError } from '../../../base/index.js';
import { nodeArea } from '../../../block/index.js';
import type { Child } from '../../../block/index.js';
import type { LuksArea } from '../../../crypto/luks/index.js';

export function headerArea(child: Pick<Child, 'node'>): LuksArea {
  return nodeArea(child, {
    start: 0,
    requireInside(offset, length) {
      const { filename, length: end } = child.node;
      if (offset + length <= end) return;
      const text = `${length} bytes at ${offset} lie past the end of '${filename}'`;
      throw new BlockError('corrupt-image', `LUKS header: ${text}`);
    },
  });
}
