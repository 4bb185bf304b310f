// SPDX-License-Identifier: Apache-2.0
// A past state of a node that can be read while the node itself changes.
//
// Offered by a driver that keeps one (copy-before-write), used by snapshot-access. All throw kind
// `access-denied` for what the snapshot does not have, or has no longer.

import type { Eventually } from '../base/index.js';
import type { BlockStatus } from './block-status.js';
import type { Request } from './request.js';

export interface SnapshotView {
  /** Bytes of the node at that moment. */
  readonly length: number;
  read(request: Request): Eventually<void>;
  /** How the snapshot reads; always allocated, for there is no layer below it. */
  blockStatus(offset: number, length: number, exact: boolean): Eventually<BlockStatus>;
  /** Gives up the whole units of the range: they need not be kept and cannot be read any more. */
  discard(request: Request): Eventually<void>;
  /** What was discarded has become free where it was kept. */
  flush(): Eventually<void>;
}
