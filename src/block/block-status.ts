// SPDX-License-Identifier: Apache-2.0
// The answer to "what is at this offset": how far it holds, who decides it, how it reads.

import type { Node } from './node.js';

export interface BlockStatus {
  /** Bytes it holds for, from the offset asked; at least 1 and at most the length asked. */
  readonly length: number;
  /** The content comes from this layer and not from its backing file. */
  readonly allocated: boolean;
  /** Bytes are stored (in `file` when hostOffset is given). */
  readonly data: boolean;
  /** Reads as zeroes. */
  readonly zero: boolean;
  readonly compressed: boolean;
  /** Where the bytes are in `file`; absent when they are not stored as they read. */
  readonly hostOffset?: number;
  readonly file?: Node;
}
