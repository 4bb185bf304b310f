// SPDX-License-Identifier: Apache-2.0
// The objects of `object-add`, and the tree of names in which `qom-*` commands find them.
//
// The tree is small: the root, the container `objects`, and one leaf for each object. A path is
// absolute, or the end of a path that only one object has.

import { BlockError } from '../base/index.js';
import type { Clock } from '../base/index.js';
import type { ThrottleGroup } from '../block/throttle/index.js';
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
export type ObjectOptions = ThrottleGroupOptions;

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
  readonly #clock: Clock;
  readonly #objects = new Map<string, ThrottleGroupObject>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Throws kind `invalid-option` or `exists`, with nothing added. */
  add(options: ObjectOptions): void {
    const { id } = options;
    if (!IDENTIFIER.test(id)) {
      throw new BlockError('invalid-option', "Parameter 'id' expects an identifier");
    }
    const object = makeThrottleGroup(options, this.#clock);
    // Every container has the property `type`.
    if (id === 'type' || this.#objects.has(id)) {
      throw new BlockError(
        'exists',
        `attempt to add duplicate property '${id}' to object (type 'container')`,
      );
    }
    this.#objects.set(id, object);
  }

  remove(id: string): void {
    const object = this.#objects.get(id);
    if (object === undefined) throw new BlockError('not-found', `object '${id}' not found`);
    if (object.inUse) throw new BlockError('busy', `object '${id}' is in use, can not be deleted`);
    this.#objects.delete(id);
  }

  throttleGroup(id: string): ThrottleGroup | null {
    return this.#objects.get(id)?.group ?? null;
  }

  /** The program ends: nothing waits for a rate any more. */
  letEverythingThrough(): void {
    for (const { group } of this.#objects.values()) group.suspendAll();
  }

  /** Properties of the object at `path`. */
  list(path: string): PropertyFacts[] {
    const { type: _, properties } = this.#resolve(path);
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

  #resolve(path: string): ManagedObject {
    const parts = path.split('/').filter((part) => part !== '');
    const matches = this.#tree().filter((node) =>
      path.startsWith('/') ? isSame(node.path, parts) : endsWith(node.path, parts),
    );
    const [found, second] = matches;
    if (second !== undefined) {
      throw new BlockError('invalid-option', `Path '${path}' is ambiguous`);
    }
    if (found === undefined) {
      throw new BlockError('device-not-found', `Device '${path}' not found`);
    }
    return found.object;
  }

  #tree(): TreeNode[] {
    const leaves = [...this.#objects].map(([id, object]) => ({ path: ['objects', id], object }));
    const objects = { path: ['objects'], object: containerOf(leaves) };
    const root = { path: [], object: containerOf([objects]) };
    return [root, objects, ...leaves];
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
