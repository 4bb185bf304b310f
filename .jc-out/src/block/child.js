// SPDX-License-Identifier: Apache-2.0
// An edge of the graph: a parent (a node, or a backend for users outside the graph) uses a child.
//
// The interfaces are what drivers and jobs see; Edge is the one implementation, changed only by
// graph operations (graph.ts, graph-changes.ts) in one synchronous go.
/** Description of users without a name of their own: commands, and the I/O of some jobs. */
export const UNNAMED_USER = 'an unnamed block device';
export class Edge {
    name;
    role;
    parent;
    node;
    permissions;
    /** Jobs that froze the link, in order; the first is named in refusals. */
    freezers = [];
    constructor(facts) {
        this.name = facts.name;
        this.role = facts.role;
        this.parent = facts.parent;
        this.node = facts.node;
        this.permissions = facts.permissions;
    }
    get frozenBy() {
        return this.freezers[0] ?? null;
    }
}
