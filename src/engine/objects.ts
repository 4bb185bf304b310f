// SPDX-License-Identifier: Apache-2.0
// The objects of `object-add`, and the tree of names in which `qom-*` commands find them.
//
// The tree is small: the root, a container for each branch (`objects`, and what else has names, as
// `chardevs`), and its leaves. A path is absolute, or the end of a path that only one object has.
// The container `objects` is there from the first object on.

import { BlockError, settle } from '../base/index.js';
import type { Clock, Eventually } from '../base/index.js';
import type { ThrottleGroup } from '../block/throttle/index.js';
import type { Graph, Node } from '../block/index.js';
import type { LaneExecutor } from '../block/copy/index.js';
import type { Host } from '../host/index.js';
import { IoThread, makeMainLoop, Placement } from './iothread.js';
import { makeSecret } from './secret-object.js';
import type { SecretObject, SecretObjectOptions } from './secret-object.js';
import { makeThrottleGroup } from './throttle-object.js';
import type { ThrottleGroupOptions } from './throttle-object.js';

/** A property of an object: how its value is named, read and, where that is possible, changed. */
export interface ObjectProperty {
  readonly type: string;
  get(): unknown;
  /** Absent: refused as not writable. */
  set?(value: unknown): void;
}

export interface ManagedObject {
  readonly type: string;
  readonly properties: ReadonlyMap<string, ObjectProperty>;
  readonly inUse: boolean;
}

export interface ThrottleGroupObject extends ManagedObject {
  readonly group: ThrottleGroup;
}

/** Arguments of `object-add`, validated. */
export type ObjectOptions =
  | ThrottleGroupOptions
  | SecretObjectOptions
  | (Readonly<Record<string, unknown>> & {
      readonly 'qom-type': 'iothread' | 'main-loop';
      readonly id: string;
    });

/** A container of the tree: its leaves by name. */
export type ObjectBranch = () => Iterable<readonly [string, ManagedObject]>;

export interface PropertyFacts {
  readonly name: string;
  readonly type: string;
}

interface TreeNode {
  readonly path: readonly string[];
  readonly object: ManagedObject;
}

const IDENTIFIER = /^[A-Za-z][A-Za-z0-9\-._]*$/;

export class ObjectRegistry {
  readonly placement = new Placement();
  readonly #clock: Clock;
  readonly #objects = new Map<string, ManagedObject>();
  readonly #groups = new Map<string, ThrottleGroupObject>();
  readonly #threads = new Map<string, IoThread>();
  readonly #secrets = new Map<string, SecretObject>();
  readonly #branches = new Map<string, ObjectBranch>();
  readonly #graph: () => Graph;
  #isClosed = false;

  constructor(clock: Clock, graph: () => Graph) {
    this.#clock = clock;
    this.#graph = graph;
  }

  addBranch(name: string, branch: ObjectBranch): void {
    this.#branches.set(name, branch);
  }

  /** Throws kind `invalid-option` or `exists`, with nothing added. */
  add(options: ObjectOptions): Eventually<void> {
    const { id } = options;
    this.requireIdentifier(id);
    return settle(this.#make(options), (register) => this.#adopt(id, register));
  }

  #adopt(id: string, register: () => ManagedObject): void {
    this.#requireFree(id);
    this.#objects.set(id, register());
    this.#branches.set('objects', () => this.#objects);
  }

  #requireFree(id: string): void {
    if (this.#isClosed) throw new BlockError('invalid-state', 'The engine is closed');
    // Every container has the property `type`.
    if (id !== 'type' && !this.#objects.has(id)) return;
    throw new BlockError(
      'exists',
      `attempt to add duplicate property '${id}' to object (type 'container')`,
    );
  }

  /** Throws kind `invalid-option` for what cannot be the name of an object. */
  requireIdentifier(id: string): void {
    if (IDENTIFIER.test(id)) return;
    throw new BlockError('invalid-option', "Parameter 'id' expects an identifier", {
      hint: "Identifiers consist of letters, digits, '-', '.', '_', starting with a letter.",
    });
  }

  async remove(id: string): Promise<void> {
    const object = this.#objects.get(id);
    if (object === undefined) throw new BlockError('not-found', `object '${id}' not found`);
    if (object.inUse) throw new BlockError('busy', `object '${id}' is in use, can not be deleted`);
    const thread = this.#threads.get(id);
    this.#forget(id);
    await thread?.close();
  }

  #forget(id: string): void {
    this.#secrets.get(id)?.wipe();
    const maps = [this.#objects, this.#groups, this.#threads, this.#secrets];
    for (const map of maps) map.delete(id);
  }

  throttleGroup(id: string): ThrottleGroup | null {
    return this.#groups.get(id)?.group ?? null;
  }

  /** A copy of the data, which the caller wipes. Throws kind `not-found`. */
  secret(id: string): Uint8Array {
    const found = this.#secrets.get(id);
    if (found !== undefined) return found.data();
    const text = this.#objects.has(id)
      ? `Object with id '${id}' is not a secret`
      : `No secret with id '${id}'`;
    throw new BlockError('not-found', text);
  }

  iothread(id: string): IoThread | null {
    return this.#threads.get(id) ?? null;
  }

  /** Who copies from a node: the thread that it is placed on, or null. */
  lanesOf(node: Node, host: Host): LaneExecutor | null {
    return this.placement.of(node)?.lanes(host) ?? null;
  }

  /** Ends the threads and wipes the secrets, also one that is still read. */
  async close(): Promise<void> {
    this.#isClosed = true;
    for (const id of this.#secrets.keys()) this.#forget(id);
    for (const thread of this.#threads.values()) await thread.close();
  }

  #make(options: ObjectOptions): Eventually<() => ManagedObject> {
    const { id } = options;
    if (options['qom-type'] === 'secret') return this.#makeSecret(options as SecretObjectOptions);
    if (options['qom-type'] === 'throttle-group') {
      const group = makeThrottleGroup(options as ThrottleGroupOptions, this.#clock);
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
    const used = (thread: IoThread): boolean => this.placement.uses(thread, this.#graph());
    const thread = new IoThread(id, options, used);
    return () => {
      this.#threads.set(id, thread);
      return thread;
    };
  }

  async #makeSecret(options: SecretObjectOptions): Promise<() => ManagedObject> {
    const { host } = this.#graph();
    // That one has that name is told before what is wrong with the data, and again after reading.
    if (options.loaded === undefined) this.#requireFree(options.id);
    const made = await makeSecret(options, { host, secret: (id) => this.secret(id) });
    try {
      this.#requireFree(options.id);
    } catch (error) {
      made.wipe();
      throw error;
    }
    return () => {
      this.#secrets.set(options.id, made);
      return made;
    };
  }

  /** The program ends: nothing waits for a rate any more. */
  letEverythingThrough(): void {
    for (const { group } of this.#groups.values()) group.suspendAll();
  }

  /** Properties of the object at `path`. */
  list(path: string): PropertyFacts[] {
    const { type: _, properties } = this.#resolve(path, { tellsAmbiguity: true });
    const own = [...properties].map(([name, { type }]) => ({ name, type }));
    return [{ name: 'type', type: 'string' }, ...own];
  }

  get(path: string, name: string): unknown {
    const object = this.#resolve(path);
    return name === 'type' ? object.type : propertyOf(object, name).get();
  }

  set(path: string, name: string, value: unknown): void {
    const object = this.#resolve(path);
    const property = name === 'type' ? null : propertyOf(object, name);
    if (property?.set === undefined) {
      const text = `Property '${object.type}.${name}' is not writable`;
      throw new BlockError('invalid-option', text);
    }
    property.set(value);
  }

  /** Only a list says that a path leads to several objects; elsewhere it leads to none. */
  #resolve(path: string, options = { tellsAmbiguity: false }): ManagedObject {
    const parts = path.split('/').filter((part) => part !== '');
    const matches = this.#tree().filter((node) =>
      path.startsWith('/') ? isSame(node.path, parts) : endsWith(node.path, parts),
    );
    const [found, second] = matches;
    if (second !== undefined && options.tellsAmbiguity) {
      throw new BlockError('invalid-option', `Path '${path}' is ambiguous`);
    }
    if (found === undefined || second !== undefined) {
      throw new BlockError('device-not-found', `Device '${path}' not found`);
    }
    return found.object;
  }

  #tree(): TreeNode[] {
    const containers = [...this.#branches].map(([name, branch]) => {
      const leaves = [...branch()].map(([id, object]) => ({ path: [name, id], object }));
      return { leaves, node: { path: [name], object: containerOf(leaves) } };
    });
    const root = { path: [], object: containerOf(containers.map(({ node }) => node)) };
    return [root, ...containers.flatMap(({ node, leaves }) => [node, ...leaves])];
  }
}

function containerOf(children: readonly TreeNode[]): ManagedObject {
  const properties = children.map(({ path, object }): [string, ObjectProperty] => [
    path.at(-1) ?? '',
    { type: `child<${object.type}>`, get: () => `/${path.join('/')}` },
  ]);
  return { type: 'container', properties: new Map(properties), inUse: true };
}

function propertyOf(object: ManagedObject, name: string): ObjectProperty {
  const property = object.properties.get(name);
  if (property !== undefined) return property;
  throw new BlockError('invalid-option', `Property '${object.type}.${name}' not found`);
}

function isSame(left: readonly string[], right: readonly string[]): boolean {
  return left.length === right.length && left.every((part, index) => part === right[index]);
}

function endsWith(path: readonly string[], end: readonly string[]): boolean {
  return end.length <= path.length && isSame(path.slice(path.length - end.length), end);
}
