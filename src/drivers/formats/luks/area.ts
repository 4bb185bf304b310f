// SPDX-License-Identifier: Apache-2.0
// Header and key material as bytes of the node that they lie in.

import { BlockError } from '../../../base/index.js';
import { readRequest, writeRequest } from '../../../block/index.js';
import type { Child } from '../../../block/index.js';
import type { LuksArea } from '../../../crypto/luks/index.js';

/** `start`: where in the node the header begins. */
export function nodeArea(child: Pick<Child, 'node'>, start = 0): LuksArea {
  return {
    async read(offset, length) {
      const { node } = child;
      if (start + offset + length > node.length) {
        throw new BlockError(
          'corrupt-image',
          `LUKS header: ${length} bytes at ${offset} lie past the end of '${node.filename}'`,
        );
      }
      const bytes = new Uint8Array(length);
      await node.read(readRequest(start + offset, bytes));
      return bytes;
    },
    async write(offset, bytes) {
      await child.node.write(writeRequest(start + offset, bytes));
    },
    async flush() {
      await child.node.flush();
    },
  };
}
