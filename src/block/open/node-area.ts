// SPDX-License-Identifier: Apache-2.0
// Part of a node as plain bytes, for what lies in it and is no guest data: headers and what they
// point to. Whoever made it says how far it goes, for only they can name what is wrong.

import type { Child } from '../child.js';
import { readRequest, writeRequest } from '../request.js';

export interface NodePart {
  /** Where in the node byte 0 is. */
  readonly start: number;
  /** Throws where not all of these bytes are in the part. */
  requireInside(offset: number, length: number): void;
}

export interface NodeArea {
  read(offset: number, length: number): Promise<Uint8Array>;
  write(offset: number, bytes: Uint8Array): Promise<void>;
  /** Makes what was written durable. */
  flush(): Promise<void>;
}

/** The node is that which the child has by then. */
export function nodeArea(child: Pick<Child, 'node'>, part: NodePart): NodeArea {
  const { start } = part;
  return {
    async read(offset, length) {
      part.requireInside(offset, length);
      const bytes = new Uint8Array(length);
      await child.node.read(readRequest(start + offset, bytes));
      return bytes;
    },
    async write(offset, bytes) {
      part.requireInside(offset, bytes.length);
      await child.node.write(writeRequest(start + offset, bytes));
    },
    async flush() {
      await child.node.flush();
    },
  };
}
