// SPDX-License-Identifier: Apache-2.0
// Backend: the edge of a user outside the graph (job, export, guest device, command line).
//
// This is the outer edge where drain stops requests: while quiesced, new requests wait in order of
// arrival, and those that come before all of them have begun queue behind them; requests already
// inside go on and are counted. An inline request only looks at two counters. Range is checked here
// against the node's size: outside users never grow a node by writing.
import { assert, BlockError, Permission, settle, } from '../../base/index.js';
import { Edge } from '../child.js';
import { discardRequest, readRequest, writeRequest, zeroRequest, } from '../request.js';
export class GraphBackend {
    description;
    edge;
    #owner;
    #quiesced = 0;
    #running = 0;
    #detaching = null;
    /** Begins of what came while it was quiesced, in order. */
    #held = [];
    #idleWaiters = [];
    #listeners = [];
    constructor(facts) {
        this.description = facts.user.description;
        this.#owner = facts.owner;
        this.edge = new Edge({
            name: facts.user.link ?? 'root',
            role: 0,
            parent: this.#asParent(facts.user),
            node: facts.node,
            permissions: facts.permissions,
        });
    }
    #asParent({ description, job, blocks }) {
        return {
            description,
            node: null,
            job,
            blocks,
            quiesce: () => this.quiesce(),
            busy: () => this.busy(),
            idle: () => this.idle(),
            unquiesce: () => this.unquiesce(),
        };
    }
    get child() {
        return this.edge;
    }
    get node() {
        return this.edge.node;
    }
    read(offset, buffer, flags = 0) {
        return this.#submit(readRequest(offset, buffer, flags));
    }
    write(offset, buffer, flags = 0) {
        return this.#submit(writeRequest(offset, buffer, flags));
    }
    writeZeroes(offset, length, flags = 0) {
        return this.#submit(zeroRequest(offset, length, flags));
    }
    discard(offset, length) {
        return this.#submit(discardRequest(offset, length));
    }
    flush() {
        return settle(this.enter(), (leave) => {
            let result;
            try {
                result = this.edge.node.flush();
            }
            catch (error) {
                leave();
                throw error;
            }
            if (result instanceof Promise)
                return result.finally(leave);
            leave();
            return undefined;
        });
    }
    setPermissions(permissions) {
        this.#owner.changePermissions(this.edge, permissions);
    }
    onQuiesce(callback) {
        this.#listeners.push({ callback, quiesced: false });
        this.#tellListeners();
    }
    enter() {
        this.#checkAttached();
        return this.#mustWait ? this.#hold(() => this.#enterNow()) : this.#enterNow();
    }
    detach() {
        this.#detaching ??= this.#detachWhenIdle();
        return this.#detaching;
    }
    quiesce() {
        this.#quiesced += 1;
        this.#tellListeners();
    }
    unquiesce() {
        assert(this.#quiesced > 0, `backend '${this.description}' is not quiesced`);
        this.#quiesced -= 1;
        this.#tellListeners();
        while (this.#quiesced === 0) {
            const begin = this.#held.shift();
            if (begin === undefined)
                return;
            begin();
        }
    }
    busy() {
        return this.#running > 0;
    }
    /** Finishes when no request runs through the edge. */
    idle() {
        if (this.#running === 0)
            return undefined;
        return new Promise((resolve) => this.#idleWaiters.push(resolve));
    }
    get #mustWait() {
        return this.#quiesced !== 0 || this.#held.length !== 0;
    }
    #hold(begin) {
        return new Promise((resolve, reject) => {
            this.#held.push(() => {
                try {
                    resolve(begin());
                }
                catch (error) {
                    reject(error);
                }
            });
        });
    }
    /** Each hears of a change once, also when another of them begins or ends a section. */
    #tellListeners() {
        for (const listener of this.#listeners) {
            const quiesced = this.#quiesced > 0;
            if (listener.quiesced === quiesced)
                continue;
            listener.quiesced = quiesced;
            listener.callback(quiesced);
        }
    }
    #enterNow() {
        this.#checkAttached();
        this.#running += 1;
        let left = false;
        return () => {
            assert(!left, `backend '${this.description}' left twice`);
            left = true;
            this.#leave();
        };
    }
    #submit(request) {
        this.#checkAttached();
        return this.#mustWait ? this.#hold(() => this.#start(request)) : this.#start(request);
    }
    #start(request) {
        this.#checkAttached();
        const node = this.edge.node;
        this.#checkRequest(request, node);
        this.#running += 1;
        let result;
        try {
            result = dispatch(node, request);
        }
        catch (error) {
            this.#leave();
            throw error;
        }
        if (result instanceof Promise)
            return this.#leaveAfter(result);
        this.#leave();
        return undefined;
    }
    async #leaveAfter(result) {
        try {
            await result;
        }
        finally {
            this.#leave();
        }
    }
    async #detachWhenIdle() {
        if (this.busy())
            await this.idle();
        await this.#owner.detachBackend(this);
    }
    #leave() {
        this.#running -= 1;
        if (this.#running === 0 && this.#idleWaiters.length > 0) {
            const waiters = this.#idleWaiters;
            this.#idleWaiters = [];
            for (const wake of waiters)
                wake();
        }
    }
    #checkAttached() {
        if (this.#detaching === null)
            return;
        throw new BlockError('closed', `'${this.description}' is not attached to a node any more`);
    }
    #checkRequest(request, node) {
        if (request.kind !== 'read') {
            if (node.readOnly) {
                throw new BlockError('read-only', `Node '${node.name}' is read only`, {
                    node: node.name,
                    offset: request.offset,
                    errno: 'EPERM',
                });
            }
            const may = Permission.write | Permission.writeUnchanged;
            assert((this.edge.permissions.taken & may) !== 0, `'${this.description}' writes without the permission`);
        }
        if (request.offset < 0 || request.offset + request.length > node.length) {
            throw new BlockError('out-of-range', `${request.kind} of ${request.length} bytes at ${request.offset} goes beyond the end of ` +
                `node '${node.name}' (${node.length} bytes)`, { node: node.name, offset: request.offset, operation: request.kind });
        }
    }
}
function dispatch(node, request) {
    switch (request.kind) {
        case 'read':
            return node.read(request);
        case 'write':
            return node.write(request);
        case 'write-zeroes':
            return node.writeZeroes(request);
        case 'discard':
            return node.discard(request);
    }
}
