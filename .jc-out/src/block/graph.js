// SPDX-License-Identifier: Apache-2.0
// The graph: all nodes by name, their edges, and the operations on it.
//
// Edges are only ever changed here and in graph-changes.ts, synchronously, together with the
// permissions that follow; a refused change leaves everything as it was. A node is closed when its
// last parent and its last reference are gone; closing takes its own children with it.
import { assert, BlockError, Turns, } from '../base/index.js';
import { GraphBackend } from './users/backend.js';
import { BlockNode } from './block-node.js';
import { Edge } from './child.js';
import { DrainControl } from './drain.js';
import { freezeChain, insertFilter, refuseClosing, setBacking, settled, } from './graph-changes.js';
import { addListedChild, removeListedChild } from './child-lists.js';
import { NodeNames } from './node-names.js';
import { openImage } from './open/image.js';
import { rootContext } from './open/make-node.js';
import { openNode } from './open/open.js';
import { appendOverlay, sealBelow } from './reopen/overlay.js';
import { LeavingFilters } from './reopen/leaving-filters.js';
import { NO_PERMISSIONS, refreshPermissions } from './permissions.js';
import { changeOptions, reopenNodes, setReadOnly } from './reopen/reopen.js';
import { replaceNode } from './reopen/replace-node.js';
export function createGraph(parts) {
    return new BlockGraph(parts);
}
/** The class behind a node; nodes of another graph are a programmer's mistake. */
export function asBlockNode(node) {
    assert(node instanceof BlockNode, 'a node of this block layer');
    return node;
}
export class BlockGraph {
    host;
    clock;
    random;
    registry;
    names;
    onCorruption;
    throttleGroup;
    onEvent;
    drains = new DrainControl();
    #nodes = new Map();
    /**
     * One change at a time: what it has planned stays true while it waits, but for users that come
     * and go. Whoever asks for one holds up no request, so that the one before can drain.
     */
    #changes = new Turns();
    #leaving = new LeavingFilters(this, this.#changes);
    #lastSequence = 0;
    constructor(parts) {
        this.host = parts.host;
        this.clock = parts.clock;
        this.random = parts.random;
        this.registry = parts.registry;
        this.names = new NodeNames(parts.random);
        this.onCorruption = parts.onCorruption ?? (() => undefined);
        this.throttleGroup = parts.throttleGroup ?? (() => null);
        this.onEvent = parts.onEvent ?? (() => undefined);
    }
    async open(options, policy = {}) {
        const node = await openNode(this, options, rootContext(policy));
        node.references += 1;
        return node;
    }
    async openImage(path, format, readOnly, policy = {}) {
        const node = await openImage(this, { path, format, readOnly }, policy);
        node.references += 1;
        return node;
    }
    find(name) {
        return this.#nodes.get(name) ?? null;
    }
    require(name) {
        const node = this.find(name);
        if (node !== null)
            return node;
        throw new BlockError('not-found', `Cannot find device='${name}' nor node-name='${name}'`, { node: name });
    }
    /** Oldest first. A node is older than the backing files that its own opening opens. */
    get nodes() {
        return [...this.#nodes.values()].sort((a, b) => a.sequence - b.sequence);
    }
    /** Gives a node that is being opened its place among the others. */
    enlist(node) {
        this.#lastSequence += 1;
        node.sequence = this.#lastSequence;
    }
    /** Makes a fully opened node known by its name. */
    adopt(node) {
        if (node.sequence === 0)
            this.enlist(node);
        this.#nodes.set(node.name, node);
    }
    async close(node) {
        const own = asBlockNode(node);
        assert(own.references > 0, `node '${own.name}' has no reference to drop`);
        own.references -= 1;
        await this.closeIfUnused(own);
    }
    async closeAll() {
        let failure = null;
        this.#leaving.forget();
        for (const node of this.#nodes.values())
            node.references = 0;
        for (;;) {
            const unused = [...this.#nodes.values()].filter((node) => node.parents.size === 0);
            if (unused.length === 0)
                break;
            for (const node of unused) {
                try {
                    await this.closeNode(node);
                }
                catch (error) {
                    failure ??= { error };
                }
            }
        }
        if (failure !== null)
            throw failure.error;
    }
    attach(node, user, permissions) {
        const full = typeof user === 'string' ? { description: user } : user;
        try {
            return Promise.resolve(this.attachNow(asBlockNode(node), full, permissions));
        }
        catch (error) {
            return Promise.reject(error);
        }
    }
    attachNow(node, user, permissions) {
        refuseClosing(node);
        const backend = new GraphBackend({ owner: this, node, user, permissions });
        node.parents.add(backend.edge);
        try {
            refreshPermissions([node]).commit?.();
        }
        catch (error) {
            node.parents.delete(backend.edge);
            throw error;
        }
        this.drains.join(node, backend.edge.parent);
        return backend;
    }
    changePermissions(edge, permissions) {
        const before = edge.permissions;
        edge.permissions = permissions;
        try {
            refreshPermissions([edge.node]).commit?.();
        }
        catch (error) {
            edge.permissions = before;
            throw error;
        }
        this.#leaving.retry();
    }
    async detachBackend(backend) {
        const node = backend.node;
        node.parents.delete(backend.edge);
        refreshPermissions([node]).commit?.();
        this.#leaving.retry();
        await settled([node]);
        await this.closeIfUnused(node);
    }
    /** A driver asks for less of its children than before. */
    refreshNode(node) {
        if (node.closing === null)
            refreshPermissions([node]).commit?.();
    }
    async drain(nodes) {
        return await this.drains.drain(nodes.map(asBlockNode));
    }
    freezeChain(top, base, owner) {
        const below = base === null ? null : asBlockNode(base);
        const thaw = freezeChain(asBlockNode(top), below, owner);
        return () => {
            thaw();
            this.#leaving.retry();
        };
    }
    async insertFilter(request) {
        return await this.#changes.run(() => insertFilter(this, request));
    }
    async removeFilter(filter) {
        await this.#leaving.remove(asBlockNode(filter));
    }
    async replaceNode(request) {
        await this.#changes.run(() => replaceNode(this, request));
    }
    async setBacking(node, backing) {
        const target = backing === null ? null : asBlockNode(backing);
        await this.#changes.run(() => setBacking(this, asBlockNode(node), target));
    }
    async addChild(parent, child) {
        const nodes = { parent: asBlockNode(parent), child: asBlockNode(child) };
        await this.#changes.run(() => addListedChild(this, nodes));
    }
    async removeChild(parent, name) {
        await this.#changes.run(() => removeListedChild(this, asBlockNode(parent), name));
    }
    async reopen(requests) {
        await this.#changes.run(() => reopenNodes(this, requests));
    }
    async changeOptions(node, options, modes) {
        const change = { node: asBlockNode(node), options, ...modes };
        await this.#changes.run(() => changeOptions(this, change));
    }
    async setReadOnly(node, readOnly) {
        await this.#changes.run(() => setReadOnly(this, asBlockNode(node), readOnly));
    }
    async appendOverlay(node, overlay) {
        const prepared = await this.prepareOverlay(node, overlay);
        await prepared.commit();
    }
    async prepareOverlay(node, overlay) {
        const [below, top] = [asBlockNode(node), asBlockNode(overlay)];
        const undo = await this.#changes.run(() => appendOverlay(this, below, top));
        return {
            commit: () => this.#changes.run(() => sealBelow(this, below)),
            undo: () => this.#changes.run(undo),
        };
    }
    /** Adds an edge with the permissions that follow; refused, nothing is changed. */
    addEdge(request) {
        const { parent, name, role, child } = request;
        refuseClosing(child);
        assert(!parent.edges.has(name), `node '${parent.name}' has a child '${name}' already`);
        const edge = new Edge({
            name,
            role,
            parent: parent.asParent,
            node: child,
            permissions: NO_PERMISSIONS,
        });
        parent.edges.set(name, edge);
        child.parents.add(edge);
        try {
            refreshPermissions([parent]).commit?.();
        }
        catch (error) {
            this.removeEdge(edge);
            throw error;
        }
        return edge;
    }
    /** Only ever lowers permissions, so it cannot be refused. */
    removeEdge(edge) {
        edge.parent.node?.edges.delete(edge.name);
        edge.node.parents.delete(edge);
        refreshPermissions([edge.node]).commit?.();
    }
    async closeIfUnused(node) {
        if (node.parents.size === 0 && node.references === 0)
            await this.closeNode(node);
    }
    /** Closes a node without parents; everything is let go of even when a flush fails. */
    closeNode(node) {
        node.closing ??= this.#closeNow(node);
        return node.closing;
    }
    async #closeNow(node) {
        // Nobody finds it any more; the name stays taken until the file is let go of.
        this.#nodes.delete(node.name);
        let failure = null;
        const guard = async (work) => {
            try {
                await work();
            }
            catch (error) {
                failure ??= { error };
            }
        };
        while (node.inFlight > 0)
            await node.pipeline.tracker.idle();
        const driverNode = node.pipeline.driverNode;
        if (driverNode !== null) {
            if (!node.readOnly)
                await guard(() => driverNode.prepareReadOnly?.());
            node.pipeline.driverNode = null;
            await guard(() => driverNode.close());
        }
        const children = [...node.edges.values()];
        for (const edge of children)
            this.removeEdge(edge);
        this.#leaving.retry();
        this.names.release(node.name);
        for (const { node: child } of children) {
            await settled([child]);
            await guard(() => this.closeIfUnused(child));
        }
        if (failure !== null)
            throw failure.error;
    }
}
