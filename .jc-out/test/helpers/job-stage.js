import { Permission, SeededRandom } from '../../src/base/index.js';
import { createGraph, createRegistry } from '../../src/block/index.js';
import { CopyEngine, createLanes } from '../../src/block/copy/index.js';
import { DRIVER_LOADERS } from '../../src/engine/catalog.js';
import { MemoryHost } from '../../src/host/index.js';
import { JobRegistry } from '../../src/jobs/index.js';
const drivers = createRegistry({ drivers: DRIVER_LOADERS });
export function makeGraph(host) {
    return createGraph({ host, registry: drivers, clock: host.clock, random: host.random });
}
export function makeStage(options = {}) {
    const host = options.host ?? new MemoryHost(options.seed === undefined ? {} : { seed: options.seed });
    const graph = makeGraph(host);
    const trace = [];
    const events = [];
    const lanes = createLanes(host);
    const jobs = new JobRegistry({
        graph,
        engine: new CopyEngine({ lanes: options.lanes?.(lanes) ?? lanes }),
        driver: (name) => drivers.load(name),
        emit(event) {
            events.push(event);
            trace.push(event.name === 'JOB_STATUS_CHANGE' ? `JSC ${String(event.data['status'])}` : event.name);
        },
    });
    return { host, graph, jobs, trace, events };
}
/** Makes an empty qcow2 image in the file `NAME.qcow2`. */
export async function createImage(stage, spec) {
    const path = `${spec.name}.qcow2`;
    const file = await stage.host.createFile(path);
    await file.close();
    const node = await stage.graph.open({ driver: 'file', filename: path });
    const driver = await drivers.load('qcow2');
    const backend = await stage.graph.attach(node, 'create', {
        taken: Permission.write | Permission.resize,
        shared: Permission.all,
    });
    await driver.create?.({ host: stage.host, node: () => Promise.resolve(node) }, {
        driver: 'qcow2',
        file: node.name,
        size: spec.size,
        'cluster-size': spec.clusterSize ?? 65_536,
        version: spec.version ?? 'v3',
        ...(spec.backing === undefined
            ? {}
            : { 'backing-file': `${spec.backing}.qcow2`, 'backing-fmt': 'qcow2' }),
    });
    await backend.detach();
    await stage.graph.close(node);
}
/** Opens `NAME.qcow2` as node NAME, over the node BACKING or nothing. */
export function openImage(stage, name, options = {}) {
    return stage.graph.open({
        driver: 'qcow2',
        'node-name': name,
        file: { driver: 'file', filename: `${name}.qcow2` },
        backing: options.backing ?? null,
        'read-only': options.readOnly ?? false,
        discard: 'unmap',
    });
}
export function openRaw(stage, name) {
    return stage.graph.open({
        driver: 'raw',
        'node-name': name,
        file: { driver: 'file', filename: `${name}.raw` },
    });
}
/** A guest: writes through an edge of its own and remembers what it must read. */
export class Guest {
    backend;
    expected;
    constructor(backend, expected) {
        this.backend = backend;
        this.expected = expected;
    }
    static async attach(stage, node) {
        const backend = await stage.graph.attach(node, 'guest', {
            taken: Permission.consistentRead | Permission.write,
            shared: Permission.all & ~Permission.resize,
        });
        return new Guest(backend, await readAll(node));
    }
    async write(offset, bytes) {
        this.expected.set(bytes, offset);
        await this.backend.write(offset, bytes);
    }
    /** One random write, zeroing or read. */
    async act(random) {
        const { length } = this.expected;
        const offset = random.below(length / 512) * 512;
        const size = Math.min(length - offset, (1 + random.below(200)) * 512);
        const choice = random.below(10);
        if (choice < 6) {
            const bytes = new Uint8Array(size).fill(1 + random.below(255));
            await this.write(offset, bytes);
        }
        else if (choice < 8) {
            this.expected.fill(0, offset, offset + size);
            await this.backend.writeZeroes(offset, size);
        }
        else {
            const bytes = new Uint8Array(size);
            const before = this.expected.slice(offset, offset + size);
            await this.backend.read(offset, bytes);
            if (!Buffer.from(bytes).equals(before))
                throw new Error(`guest reads other bytes at ${offset}`);
        }
    }
}
export async function readAll(node) {
    const bytes = new Uint8Array(node.length);
    await node.read({ kind: 'read', offset: 0, length: bytes.length, buffer: bytes, flags: 0 });
    return bytes;
}
/** Where two byte arrays differ first; −1 when they are the same. */
export function firstDifference(left, right) {
    if (Buffer.from(left.buffer, left.byteOffset, left.length).equals(right))
        return -1;
    const length = Math.min(left.length, right.length);
    for (let at = 0; at < length; at += 1)
        if (left[at] !== right[at])
            return at;
    return length;
}
/** Fills random parts of a node with random bytes, clusters and pieces of clusters. */
export async function scribble(stage, node, { seed, count: total }) {
    const random = new SeededRandom(seed);
    const backend = await stage.graph.attach(node, 'scribble', {
        taken: Permission.consistentRead | Permission.write,
        shared: Permission.all,
    });
    for (let count = 0; count < total; count += 1) {
        const offset = random.below(node.length / 512) * 512;
        const size = Math.min(node.length - offset, (1 + random.below(400)) * 512);
        if (random.chance(0.25))
            await backend.writeZeroes(offset, size);
        else {
            const bytes = new Uint8Array(size);
            random.fill(bytes.subarray(0, size / 2));
            await backend.write(offset, bytes);
        }
    }
    await backend.flush();
    await backend.detach();
}
export const CHAIN_NAMES = ['base', 'mid', 'top'];
/** base ← mid ← top, all with random contents; gives them open, by name. */
export async function makeChain(stage, spec) {
    const nodes = {};
    for (const [index, name] of CHAIN_NAMES.entries()) {
        const backing = CHAIN_NAMES[index - 1];
        await createImage(stage, {
            name,
            size: spec.sizes?.[index] ?? spec.size ?? 2 ** 21,
            clusterSize: spec.clusterSizes?.[index] ?? 65_536,
            ...(backing === undefined ? {} : { backing }),
        });
        const node = await openImage(stage, name, { backing: backing ?? null });
        await scribble(stage, node, { seed: spec.seed * 3 + index, count: spec.scribbles ?? 12 });
        nodes[name] = node;
    }
    return nodes;
}
/** Lets everything that waits for promises alone go on. */
export async function turns(count = 20) {
    for (let turn = 0; turn < count; turn += 1) {
        await new Promise((resolve) => void setImmediate(resolve));
    }
}
