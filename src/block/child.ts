// SPDX-License-Identifier: Apache-2.0
// An edge of the graph: a parent (a node, or a backend for users outside the graph) uses a child.
//
// The interfaces are what drivers and jobs see; Edge is the one implementation, changed only by
// graph operations (graph.ts, graph-changes.ts) in one synchronous go.

import type { Eventually, PermissionPair } from '../base/index.js';
import type { BlockNode } from './block-node.js';
import type { Node } from './node.js';
import type { OperationBlock } from './users/op-blockers.js';

/** Description of users without a name of their own: commands, and the I/O of some jobs. */
export const UNNAMED_USER = 'an unnamed block device';

/** A user outside the graph, as it attaches to a node. */
export interface EdgeUser {
  /** As named in refusals: `an unnamed block device`, `stream job 'j'`. */
  readonly description: string;
  /** Name of the edge; `root` by default. */
  readonly link?: string;
  /** The job whose edge this is: it goes on using its node whatever is put above that. */
  readonly job?: string;
  readonly blocks?: OperationBlock;
}

/** What the far end of an edge says of itself, in refusals and in drain. */
export interface EdgeParent {
  /** As named in messages: a node name, a job, an export id. */
  readonly description: string;
  readonly node: Node | null;
  /** Id of the job that uses the node; such an edge never moves to another node. */
  readonly job?: string | undefined;
  /** Operations that this user keeps others from. */
  readonly blocks?: OperationBlock | undefined;
  /**
   * Stop submitting new requests; called once per nesting level. Null parents of nodes pass it up.
   */
  quiesce?(): void;
  /** Requests this parent still has running through the edge. */
  busy?(): boolean;
  /** Whether it notices being stopped at once; absent: it does. */
  atRest?(): boolean;
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
  /** The later the edge came to its node, the higher among the children of its parent. */
  turn = 0;
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
