// SPDX-License-Identifier: Apache-2.0
// An edge of the graph: a parent (a node, or a backend for users outside the graph) uses a child.
//
// The interfaces are what drivers and jobs see; Edge is the one implementation, changed only by
// graph operations (graph.ts, graph-changes.ts) in one synchronous go.

import type { Eventually, PermissionPair } from '../base/index.js';
import type { BlockNode } from './block-node.js';
import type { Node } from './node.js';

/** What the far end of an edge says of itself, in refusals and in drain. */
export interface EdgeParent {
  /** As named in messages: a node name, a job id, an export id. */
  readonly description: string;
  readonly node: Node | null;
  /**
   * Stop submitting new requests; called once per nesting level. Null parents of nodes pass it up.
   */
  quiesce?(): void;
  /** Requests this parent still has running through the edge. */
  busy?(): boolean;
  /** Finishes when `busy` is false; needed where `busy` is given. */
  idle?(): Eventually<void>;
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

export interface EdgeFacts {
  readonly name: string;
  readonly role: number;
  readonly parent: EdgeParent;
  readonly node: BlockNode;
  readonly permissions: PermissionPair;
}

export class Edge implements Child {
  readonly name: string;
  readonly role: number;
  readonly parent: EdgeParent;
  node: BlockNode;
  permissions: PermissionPair;
  /** Jobs that froze the link, in order; the first is named in refusals. */
  readonly freezers: string[] = [];

  constructor(facts: EdgeFacts) {
    this.name = facts.name;
    this.role = facts.role;
    this.parent = facts.parent;
    this.node = facts.node;
    this.permissions = facts.permissions;
  }

  get frozenBy(): string | null {
    return this.freezers[0] ?? null;
  }
}
