// SPDX-License-Identifier: Apache-2.0
// Jobs on the real graph and real drivers over a simulated host: chains are made, guests write, the
// view of a guest is compared with a plain byte array.
import type { Random } from '../../src/base/index.js';
import { Permission, SeededRandom } from '../../src/base/index.js';
import { createGraph, createRegistry } from '../../src/block/index.js';
import type { Backend, Driver, Graph, Node, NodeOptions } from '../../src/block/index.js';
import { CopyEngine, createLanes } from '../../src/block/copy/index.js';
import type { LaneExecutor } from '../../src/block/copy/index.js';
import { DRIVER_LOADERS } from '../../src/engine/catalog.js';
import { MemoryHost } from '../../src/host/index.js';
import type { Host } from '../../src/host/index.js';
import { JobRegistry } from '../../src/jobs/index.js';
import type { JobEvent } from '../../src/jobs/index.js';
import { LUKS_PASSWORD } from './luks.js';

/** Images with clusters of this size have subclusters. */
export const SUBCLUSTERED = 16_384;

export interface Stage {
  readonly host: MemoryHost;
  readonly graph: Graph;
  readonly jobs: JobRegistry;
  /** `JSC created`, `BLOCK_JOB_COMPLETED`, … */
  readonly trace: string[];
  readonly events: JobEvent[];
}

export interface StageOptions {
  readonly seed?: number;
  readonly host?: MemoryHost;
  readonly lanes?: (lanes: LaneExecutor) => LaneExecutor;
}

const drivers = createRegistry({ drivers: DRIVER_LOADERS });

export function makeGraph(host: Host): Graph {
  const secret = (): Uint8Array => Buffer.from(LUKS_PASSWORD);
  return createGraph({ host, registry: drivers, clock: host.clock, random: host.random, secret });
}

export function makeStage(options: StageOptions = {}): Stage {
  const host =
    options.host ?? new MemoryHost(options.seed === undefined ? {} : { seed: options.seed });
  const graph = makeGraph(host);
  const trace: string[] = [];
  const events: JobEvent[] = [];
  const lanes = createLanes(host);
  const jobs = new JobRegistry({
    graph,
    engine: new CopyEngine({ lanes: options.lanes?.(lanes) ?? lanes }),
    driver: (name) => drivers.load(name),
    emit(event) {
      events.push(event);
      trace.push(
        event.name === 'JOB_STATUS_CHANGE' ? `JSC ${String(event.data['status'])}` : event.name,
      );
    },
  });
  return { host, graph, jobs, trace, events };
}

export interface ImageSpec {
  readonly name: string;
  readonly size: number;
  readonly clusterSize?: number;
  readonly backing?: string;
  readonly version?: 'v2' | 'v3';
  /** With LUKS, and keys of the least iterations. */
  readonly encrypted?: boolean;
}

const KEY = { encrypt: { 'key-secret': 'k' } };
const NEW_KEY = {
  encrypt: { format: 'luks', 'key-secret': 'k', 'cipher-alg': 'aes-128', 'iter-time': 0n },
};

/** Makes an empty qcow2 image in the file `NAME.qcow2`. */
export async function createImage(stage: Stage, spec: ImageSpec): Promise<void> {
  const path = `${spec.name}.qcow2`;
  const file = await stage.host.createFile(path);
  await file.close();
  const node = await stage.graph.open({ driver: 'file', filename: path } as NodeOptions);
  const driver: Driver = await drivers.load('qcow2');
  const backend = await stage.graph.attach(node, 'create', {
    taken: Permission.write | Permission.resize,
    shared: Permission.all,
  });
  await driver.create?.(
    {
      host: stage.host,
      node: () => Promise.resolve(node),
      secret: () => Buffer.from(LUKS_PASSWORD),
    },
    {
      driver: 'qcow2',
      file: node.name,
      size: spec.size,
      'cluster-size': spec.clusterSize ?? 65_536,
      'extended-l2': spec.clusterSize === SUBCLUSTERED,
      version: spec.version ?? 'v3',
      ...(spec.encrypted === true ? NEW_KEY : {}),
      ...(spec.backing === undefined
        ? {}
        : { 'backing-file': `${spec.backing}.qcow2`, 'backing-fmt': 'qcow2' }),
    },
  );
  await backend.detach();
  await stage.graph.close(node);
}

/** Opens `NAME.qcow2` as node NAME, over the node BACKING or nothing. */
export function openImage(
  stage: Pick<Stage, 'graph'>,
  name: string,
  options: {
    readonly backing?: string | null;
    readonly readOnly?: boolean;
    /** Opened with a key; an image that is not encrypted has no use for it, but it is named. */
    readonly hasKey?: boolean;
  } = {},
): Promise<Node> {
  return stage.graph.open({
    driver: 'qcow2',
    'node-name': name,
    file: { driver: 'file', filename: `${name}.qcow2` },
    backing: options.backing ?? null,
    'read-only': options.readOnly ?? false,
    discard: 'unmap',
    ...(options.hasKey === true ? KEY : {}),
  } as NodeOptions);
}

export function openRaw(stage: Pick<Stage, 'graph' | 'host'>, name: string): Promise<Node> {
  return stage.graph.open({
    driver: 'raw',
    'node-name': name,
    file: { driver: 'file', filename: `${name}.raw` },
  } as NodeOptions);
}

/** A guest: writes through an edge of its own and remembers what it must read. */
export class Guest {
  readonly backend: Backend;
  readonly expected: Uint8Array;

  constructor(backend: Backend, expected: Uint8Array) {
    this.backend = backend;
    this.expected = expected;
  }

  static async attach(stage: Pick<Stage, 'graph'>, node: Node): Promise<Guest> {
    const backend = await stage.graph.attach(node, 'guest', {
      taken: Permission.consistentRead | Permission.write,
      shared: Permission.all & ~Permission.resize,
    });
    return new Guest(backend, await readAll(node));
  }

  async write(offset: number, bytes: Uint8Array): Promise<void> {
    this.expected.set(bytes, offset);
    await this.backend.write(offset, bytes);
  }

  /** One random write, zeroing or read. */
  async act(random: Random): Promise<void> {
    const { length } = this.expected;
    const offset = random.below(length / 512) * 512;
    const size = Math.min(length - offset, (1 + random.below(200)) * 512);
    const choice = random.below(10);
    if (choice < 6) {
      const bytes = new Uint8Array(size).fill(1 + random.below(255));
      await this.write(offset, bytes);
    } else if (choice < 8) {
      this.expected.fill(0, offset, offset + size);
      await this.backend.writeZeroes(offset, size);
    } else {
      const bytes = new Uint8Array(size);
      const before = this.expected.slice(offset, offset + size);
      await this.backend.read(offset, bytes);
      if (!Buffer.from(bytes).equals(before))
        throw new Error(`guest reads other bytes at ${offset}`);
    }
  }
}

export async function readAll(node: Node): Promise<Uint8Array> {
  const bytes = new Uint8Array(node.length);
  await node.read({ kind: 'read', offset: 0, length: bytes.length, buffer: bytes, flags: 0 });
  return bytes;
}

/** Where two byte arrays differ first; −1 when they are the same. */
export function firstDifference(left: Uint8Array, right: Uint8Array): number {
  if (Buffer.from(left.buffer, left.byteOffset, left.length).equals(right)) return -1;
  const length = Math.min(left.length, right.length);
  for (let at = 0; at < length; at += 1) if (left[at] !== right[at]) return at;
  return length;
}

/** Fills random parts of a node with random bytes, clusters and pieces of clusters. */
export async function scribble(
  stage: Stage,
  node: Node,
  { seed, count: total }: { readonly seed: number; readonly count: number },
): Promise<void> {
  const random = new SeededRandom(seed);
  const backend = await stage.graph.attach(node, 'scribble', {
    taken: Permission.consistentRead | Permission.write,
    shared: Permission.all,
  });
  for (let count = 0; count < total; count += 1) {
    const offset = random.below(node.length / 512) * 512;
    const size = Math.min(node.length - offset, (1 + random.below(400)) * 512);
    if (random.chance(0.25)) await backend.writeZeroes(offset, size);
    else {
      const bytes = new Uint8Array(size);
      random.fill(bytes.subarray(0, size / 2));
      await backend.write(offset, bytes);
    }
  }
  await backend.flush();
  await backend.detach();
}

export interface ChainSpec {
  readonly seed: number;
  readonly size?: number;
  /** Cluster sizes from the bottom up. */
  readonly clusterSizes?: readonly number[];
  /** Writes and zeroings of each layer; 12 unless given. */
  readonly scribbles?: number;
  /** Sizes from the bottom up, where they differ. */
  readonly sizes?: readonly number[];
  /** Which are encrypted, from the bottom up. */
  readonly encrypted?: readonly boolean[];
}

export const CHAIN_NAMES = ['base', 'mid', 'top'] as const;

/** base ← mid ← top, all with random contents; gives them open, by name. */
export async function makeChain(stage: Stage, spec: ChainSpec): Promise<Record<string, Node>> {
  const nodes: Record<string, Node> = {};
  for (const [index, name] of CHAIN_NAMES.entries()) {
    const backing = CHAIN_NAMES[index - 1];
    await createImage(stage, {
      name,
      size: spec.sizes?.[index] ?? spec.size ?? 2 ** 21,
      clusterSize: spec.clusterSizes?.[index] ?? 65_536,
      encrypted: spec.encrypted?.[index] ?? false,
      ...(backing === undefined ? {} : { backing }),
    });
    const hasKey = spec.encrypted !== undefined;
    const node = await openImage(stage, name, { backing: backing ?? null, hasKey });
    await scribble(stage, node, { seed: spec.seed * 3 + index, count: spec.scribbles ?? 12 });
    nodes[name] = node;
  }
  return nodes;
}

const preparedChains = new Map<string, ReadonlyMap<string, Uint8Array>>();

/**
 * The same chain for tests that play many runs on one: its files are made once in a process, put in
 * place, durable from the start, and opened.
 */
export async function openPreparedChain(stage: Stage, spec: ChainSpec): Promise<void> {
  const key = JSON.stringify(spec);
  const files = preparedChains.get(key) ?? (await prepareChain(spec));
  preparedChains.set(key, files);
  for (const [path, bytes] of files) stage.host.putFile(path, bytes);
  for (const [index, name] of CHAIN_NAMES.entries()) {
    const hasKey = spec.encrypted !== undefined;
    await openImage(stage, name, { backing: CHAIN_NAMES[index - 1] ?? null, hasKey });
  }
}

/** Contents of the files by their names, the base first. */
async function prepareChain(spec: ChainSpec): Promise<ReadonlyMap<string, Uint8Array>> {
  const stage = makeStage({ seed: spec.seed });
  await makeChain(stage, spec);
  await stage.graph.closeAll();
  await stage.jobs.engine.close();
  return new Map(stage.host.paths().map((path) => [path, stage.host.fileContents(path)]));
}

/** Lets everything that waits for promises alone go on. */
export async function turns(count = 20): Promise<void> {
  for (let turn = 0; turn < count; turn += 1) {
    await new Promise((resolve) => void setImmediate(resolve));
  }
}
