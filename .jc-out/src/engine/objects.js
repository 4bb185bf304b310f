// SPDX-License-Identifier: Apache-2.0
// The objects of `object-add`, and the tree of names in which `qom-*` commands find them.
//
// The tree is small: the root, a container for each branch (`objects`, and what else has names, as
// `chardevs`), and its leaves. A path is absolute, or the end of a path that only one object has.
// The container `objects` is there from the first object on.
import { BlockError } from '../base/index.js';
import { IoThread, makeMainLoop, Placement } from './iothread.js';
import { makeThrottleGroup } from './throttle-object.js';
const IDENTIFIER = /^[A-Za-z][A-Za-z0-9\-._]*$/;
export class ObjectRegistry {
    placement = new Placement();
    #clock;
    #objects = new Map();
    #groups = new Map();
    #threads = new Map();
    #branches = new Map();
    #graph;
    constructor(clock, graph) {
        this.#clock = clock;
        this.#graph = graph;
    }
    addBranch(name, branch) {
        this.#branches.set(name, branch);
    }
    /** Throws kind `invalid-option` or `exists`, with nothing added. */
    add(options) {
        const { id } = options;
        if (!IDENTIFIER.test(id)) {
            throw new BlockError('invalid-option', "Parameter 'id' expects an identifier");
        }
        const register = this.#make(options);
        // Every container has the property `type`.
        if (id === 'type' || this.#objects.has(id)) {
            throw new BlockError('exists', `attempt to add duplicate property '${id}' to object (type 'container')`);
        }
        this.#objects.set(id, register());
        this.#branches.set('objects', () => this.#objects);
    }
    async remove(id) {
        const object = this.#objects.get(id);
        if (object === undefined)
            throw new BlockError('not-found', `object '${id}' not found`);
        if (object.inUse)
            throw new BlockError('busy', `object '${id}' is in use, can not be deleted`);
        const thread = this.#threads.get(id);
        for (const map of [this.#objects, this.#groups, this.#threads])
            map.delete(id);
        await thread?.close();
    }
    throttleGroup(id) {
        return this.#groups.get(id)?.group ?? null;
    }
    iothread(id) {
        return this.#threads.get(id) ?? null;
    }
    /** Who copies from a node: the thread that it is placed on, or null. */
    lanesOf(node, host) {
        return this.placement.of(node)?.lanes(host) ?? null;
    }
    /** Ends the threads. */
    async close() {
        for (const thread of this.#threads.values())
            await thread.close();
    }
    #make(options) {
        const { id } = options;
        if (options['qom-type'] === 'throttle-group') {
            const group = makeThrottleGroup(options, this.#clock);
            return () => {
                this.#groups.set(id, group);
                return group;
            };
        }
        if (options['qom-type'] === 'main-loop') {
            const loop = makeMainLoop(options);
            if ([...this.#objects.values()].some(({ type }) => type === 'main-loop')) {
                throw new BlockError('exists', 'only one main-loop instance allowed');
            }
            return () => loop;
        }
        const used = (thread) => this.placement.uses(thread, this.#graph());
        const thread = new IoThread(id, options, used);
        return () => {
            this.#threads.set(id, thread);
            return thread;
        };
    }
    /** The program ends: nothing waits for a rate any more. */
    letEverythingThrough() {
        for (const { group } of this.#groups.values())
            group.suspendAll();
    }
    /** Properties of the object at `path`. */
    list(path) {
        const { type: _, properties } = this.#resolve(path);
        const own = [...properties].map(([name, { type }]) => ({ name, type }));
        return [{ name: 'type', type: 'string' }, ...own];
    }
    get(path, name) {
        const object = this.#resolve(path);
        return name === 'type' ? object.type : propertyOf(object, name).get();
    }
    set(path, name, value) {
        const object = this.#resolve(path);
        const property = name === 'type' ? null : propertyOf(object, name);
        if (property?.set === undefined) {
            const text = `Property '${object.type}.${name}' is not writable`;
            throw new BlockError('invalid-option', text);
        }
        property.set(value);
    }
    #resolve(path) {
        const parts = path.split('/').filter((part) => part !== '');
        const matches = this.#tree().filter((node) => path.startsWith('/') ? isSame(node.path, parts) : endsWith(node.path, parts));
        const [found, second] = matches;
        if (second !== undefined) {
            throw new BlockError('invalid-option', `Path '${path}' is ambiguous`);
        }
        if (found === undefined) {
            throw new BlockError('device-not-found', `Device '${path}' not found`);
        }
        return found.object;
    }
    #tree() {
        const containers = [...this.#branches].map(([name, branch]) => {
            const leaves = [...branch()].map(([id, object]) => ({ path: [name, id], object }));
            return { leaves, node: { path: [name], object: containerOf(leaves) } };
        });
        const root = { path: [], object: containerOf(containers.map(({ node }) => node)) };
        return [root, ...containers.flatMap(({ node, leaves }) => [node, ...leaves])];
    }
}
function containerOf(children) {
    const properties = children.map(({ path, object }) => [
        path.at(-1) ?? '',
        { type: `child<${object.type}>`, get: () => `/${path.join('/')}` },
    ]);
    return { type: 'container', properties: new Map(properties), inUse: true };
}
function propertyOf(object, name) {
    const property = object.properties.get(name);
    if (property !== undefined)
        return property;
    throw new BlockError('invalid-option', `Property '${object.type}.${name}' not found`);
}
function isSame(left, right) {
    return left.length === right.length && left.every((part, index) => part === right[index]);
}
function endsWith(path, end) {
    return end.length <= path.length && isSame(path.slice(path.length - end.length), end);
}
