// SPDX-License-Identifier: Apache-2.0
// I/O threads as objects, and which nodes they do the bulk work of.
//
// A thread copies (its lanes) for jobs whose source is placed on it; the graph, its tables and
// small requests stay on the event-loop thread. The polling and batching properties are kept and
// checked as clients expect; nothing polls here, so they change nothing.
import { BlockError, must } from '../base/index.js';
import { createLanes } from '../block/copy/index.js';
import { int, validate } from '../schema/index.js';
const INT64_MAX = 2n ** 63n - 1n;
export const EVENT_LOOP_PROPERTIES = {
    'thread-pool-min': 0,
    'aio-max-batch': 0,
    'thread-pool-max': 64,
};
export const IOTHREAD_PROPERTIES = {
    ...EVENT_LOOP_PROPERTIES,
    'poll-max-ns': 32_768,
    'poll-grow': 0,
    'poll-shrink': 0,
};
/** Integers with a default each, of which two limit one another. */
class LoopProperties {
    #values;
    constructor(defaults, given) {
        this.#values = new Map(Object.entries(defaults));
        for (const name of this.#values.keys()) {
            if (given[name] !== undefined)
                this.#values.set(name, checked(name, given[name]));
        }
        this.#requireRange();
    }
    table() {
        const properties = [...this.#values.keys()].map((name) => [
            name,
            {
                type: 'int',
                get: () => must(this.#values.get(name), `${name} has a value`),
                set: (value) => this.#set(name, value),
            },
        ]);
        return new Map(properties);
    }
    /** As in the reference, the value stays although its range is refused: the other may follow. */
    #set(name, value) {
        this.#values.set(name, checked(name, value));
        this.#requireRange();
    }
    #requireRange() {
        const min = this.#values.get('thread-pool-min') ?? 0;
        const max = this.#values.get('thread-pool-max') ?? 0;
        if (max > 0 && min <= max)
            return;
        const text = 'bad thread-pool-min/thread-pool-max values';
        throw new BlockError('invalid-option', text);
    }
}
function checked(name, value) {
    const number = validate(int, value, name);
    if (number >= 0)
        return number;
    throw new BlockError('invalid-option', `${name} value must be in range [0, ${INT64_MAX}]`);
}
export function makeMainLoop(given) {
    const properties = new LoopProperties(EVENT_LOOP_PROPERTIES, given).table();
    // There is one for as long as the program runs.
    return { type: 'main-loop', properties, inUse: true };
}
export class IoThread {
    type = 'iothread';
    id;
    properties;
    #isUsed;
    #lanes = null;
    constructor(id, given, isUsed) {
        this.id = id;
        this.properties = new LoopProperties(IOTHREAD_PROPERTIES, given).table();
        this.#isUsed = isUsed;
    }
    /** The reference deletes a thread that nodes are on, and crashes with the first of them. */
    get inUse() {
        return this.#isUsed(this);
    }
    /** One thread, started with its first work. */
    lanes(host) {
        this.#lanes ??= createLanes(host, 1);
        return this.#lanes;
    }
    async close() {
        await this.#lanes?.close();
    }
}
/** Which thread each node is on; those that are not here are on the main one. */
export class Placement {
    #threads = new WeakMap();
    of(node) {
        return this.#threads.get(node) ?? null;
    }
    uses(thread, graph) {
        for (const node of graph.nodes)
            if (this.of(node) === thread)
                return true;
        return false;
    }
    /** Moves a node, and all that is connected to it, while none of them has requests. */
    async move(graph, node, thread) {
        if (this.of(node) === thread)
            return;
        const section = await graph.drain(connected(graph, node));
        try {
            for (const each of connected(graph, node)) {
                if (thread === null)
                    this.#threads.delete(each);
                else
                    this.#threads.set(each, thread);
            }
        }
        finally {
            section.end();
        }
    }
}
/** Nodes reachable over edges in either direction, and over the jobs that use several nodes. */
function connected(graph, start) {
    const byJob = new Map();
    for (const node of graph.nodes) {
        for (const { parent } of node.parents) {
            if (parent.job === undefined)
                continue;
            byJob.set(parent.job, [...(byJob.get(parent.job) ?? []), node]);
        }
    }
    const found = new Set([start]);
    // The set grows while it is walked.
    for (const node of found) {
        for (const { node: child } of node.children.values())
            found.add(child);
        for (const { parent } of node.parents) {
            if (parent.node !== null)
                found.add(parent.node);
            for (const other of byJob.get(parent.job ?? '') ?? [])
                found.add(other);
        }
    }
    return [...found];
}
