// SPDX-License-Identifier: Apache-2.0
// An edge of the graph: a parent (a node, or a backend for users outside the graph) uses a child.

import type { PermissionPair } from '../base/index.js';
import type { Node } from './node.js';

/** What the far end of an edge says of itself, in refusals and in drain. */
export interface EdgeParent {
  /** As named in messages: a node name, a job id, an export id. */
  readonly description: string;
  readonly node: Node | null;
  /** Stop submitting new requests; called once per nesting level. Null parents of nodes pass it up. */
  quiesce?(): void;
  /** Requests this parent still has running through the edge. */
  busy?(): boolean;
  unquiesce?(): void;
  /** The child changed size or was replaced. */
  childResized?(child: Child): void;
}

export interface Child {
  /** `file`, `backing`, `root`, … */
  readonly name: string;
  readonly role: number;
  readonly parent: EdgeParent;
  /** Looked up again after every await: graph changes replace it. */
  readonly node: Node;
  readonly permissions: PermissionPair;
  /** Set while a job relies on this link; replacing it is refused naming the job. */
  readonly frozenBy: string | null;
}
