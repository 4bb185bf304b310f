// SPDX-License-Identifier: Apache-2.0
// Drained sections: every user outside the graph that can reach the drained nodes stops sending,
// then what runs already is waited for. Sections nest and overlap; each keeps the users it stopped,
// whatever becomes of the edges. Users that come to reach the nodes later are stopped too: attached
// ones at once, those that a graph change brings when the section of that change ends.
import { assert } from '../base/index.js';
/** `nodes` and everything above them. */
export function withAncestors(nodes) {
    const found = new Set(nodes);
    // A Set visits what is added while it is walked.
    for (const node of found) {
        for (const edge of node.parents) {
            const parent = edge.parent.node;
            if (parent !== null)
                found.add(parent);
        }
    }
    return found;
}
/** The nodes that `nodes` use, however far down. */
function nodesBelow(nodes) {
    const found = new Set();
    for (const start of nodes)
        for (const edge of start.edges.values())
            found.add(edge.node);
    for (const node of found)
        for (const edge of node.edges.values())
            found.add(edge.node);
    return found;
}
function reaches(from, targets) {
    const found = new Set([from]);
    for (const node of found) {
        if (targets.has(node))
            return true;
        for (const edge of node.edges.values())
            found.add(edge.node);
    }
    return false;
}
class Section {
    #roots;
    #stopped = new Set();
    #hurried = new Set();
    #sections;
    #ended = false;
    constructor(nodes, sections) {
        this.#roots = new Set(nodes);
        this.#sections = sections;
        sections.add(this);
    }
    /** Stops whoever reaches the nodes now; gives the nodes and all above them. */
    cover() {
        const covered = withAncestors(this.#roots);
        for (const node of covered) {
            for (const { parent } of node.parents)
                if (parent.node === null)
                    this.#stop(parent);
            this.#hurry(node.pipeline.driverNode);
        }
        // Whoever would let go what is held further down may wait for this very section.
        for (const node of nodesBelow(this.#roots)) {
            const { driverNode } = node.pipeline;
            if (driverNode?.breakpoints !== undefined)
                this.#hurry(driverNode);
        }
        return covered;
    }
    /** Stops a new outside user of `node` if it reaches the nodes. */
    join(node, parent) {
        if (reaches(node, this.#roots))
            this.#stop(parent);
    }
    #stop(parent) {
        if (this.#stopped.has(parent))
            return;
        this.#stopped.add(parent);
        parent.quiesce?.();
    }
    /** A node's driver stops holding requests back. */
    #hurry(driverNode) {
        if (driverNode?.drainBegin === undefined || this.#hurried.has(driverNode))
            return;
        this.#hurried.add(driverNode);
        driverNode.drainBegin();
    }
    /** All that were stopped, those of the lowest nodes first, as the graph is by now. */
    #inOrder() {
        const order = new Set();
        for (const node of withAncestors(this.#roots)) {
            for (const { parent } of node.parents)
                if (this.#stopped.has(parent))
                    order.add(parent);
        }
        for (const parent of this.#stopped)
            order.add(parent);
        return order;
    }
    end() {
        assert(!this.#ended, 'a drained section ended twice');
        this.#ended = true;
        this.#sections.delete(this);
        // What changed meanwhile may have led users to the nodes of others: they are not let go.
        for (const other of this.#sections)
            other.cover();
        for (const driverNode of this.#hurried)
            driverNode.drainEnd?.();
        for (const parent of this.#inOrder())
            parent.unquiesce?.();
    }
}
export class DrainControl {
    #sections = new Set();
    /** Stops all users above `nodes`, and resolves when nothing runs on them or above them. */
    async drain(nodes) {
        const section = new Section(nodes, this.#sections);
        for (;;) {
            const waiting = firstBusy(section.cover());
            if (waiting === undefined)
                return section;
            await waiting;
        }
    }
    /** A new outside user of `node` stops with every section that covers the node. */
    join(node, parent) {
        for (const section of this.#sections)
            section.join(node, parent);
    }
}
/** What to wait for next, or undefined when nothing runs. */
function firstBusy(nodes) {
    for (const node of nodes) {
        if (node.inFlight > 0)
            return node.pipeline.tracker.idle();
        for (const edge of node.parents) {
            if (edge.parent.node === null && edge.parent.busy?.() === true) {
                return edge.parent.idle?.();
            }
        }
    }
    return undefined;
}
