// SPDX-License-Identifier: Apache-2.0
// What a server can do, looked up in its answer to query-qmp-schema.
//
// Names of types are masked there, so questions are asked by way of members. A path is members with
// dots between them: `options.driver`; `driver=qcow2.data-file` goes on in one branch of a union,
// and without `tag=value` every branch is searched. Lists and alternates are looked through.

import type { SchemaEntry } from '../schema/index.js';

interface SchemaMember {
  readonly name?: unknown;
  readonly type?: unknown;
  readonly features?: unknown;
}

export class ServerSchema {
  readonly #entries: ReadonlyMap<string, SchemaEntry>;

  constructor(entries: readonly SchemaEntry[]) {
    // Types have masked names that are no names of commands or events.
    this.#entries = new Map(entries.map((entry) => [entry.name, entry]));
  }

  hasCommand(name: string): boolean {
    return this.#entries.get(name)?.['meta-type'] === 'command';
  }

  hasEvent(name: string): boolean {
    return this.#entries.get(name)?.['meta-type'] === 'event';
  }

  /** A feature of the command itself, such as `deprecated`, or of the argument at a path. */
  hasFeature(name: string, feature: string, path?: string): boolean {
    if (path === undefined) return listed(this.#entries.get(name)?.['features']).includes(feature);
    const members = this.#follow(this.#argument(name), path);
    return members.some((member) => listed(member.features).includes(feature));
  }

  /** An argument of a command or a member of an event. */
  hasArgument(name: string, path: string): boolean {
    return this.#follow(this.#argument(name), path).length > 0;
  }

  /** A member of what a command returns. */
  hasResult(name: string, path: string): boolean {
    return this.#follow(this.#typed(this.#entries.get(name)?.['ret-type']), path).length > 0;
  }

  /** A value of the enumeration at a path, such as a driver of `blockdev-add`. */
  hasValue(name: string, path: string, value: string): boolean {
    return this.#follow(this.#argument(name), path)
      .flatMap((member) => this.#typed(member.type))
      .some((type) => type['meta-type'] === 'enum' && valuesOf(type).includes(value));
  }

  /** May run out of band. */
  allowsOob(name: string): boolean {
    return this.#entries.get(name)?.['allow-oob'] === true;
  }

  #argument(name: string): SchemaEntry[] {
    const entry = this.#entries.get(name);
    const isNamed = entry?.['meta-type'] === 'command' || entry?.['meta-type'] === 'event';
    return isNamed ? this.#typed(entry['arg-type']) : [];
  }

  /** The members that a path leads to; none when it leads nowhere. */
  #follow(start: readonly SchemaEntry[], path: string): SchemaMember[] {
    let types = [...start];
    let members: SchemaMember[] = [];
    for (const step of path.split('.')) {
      const [name, value] = step.split('=');
      members = types.flatMap((type) => this.#membersOf(type)).filter((one) => one.name === name);
      types =
        value === undefined
          ? members.flatMap((member) => this.#typed(member.type))
          : types.flatMap((type) => this.#branch(type, { tag: name as string, value }));
      if (value !== undefined && types.length === 0) return [];
    }
    return members;
  }

  /** Common members and those of every branch. */
  #membersOf(type: SchemaEntry): SchemaMember[] {
    if (type['meta-type'] !== 'object') return [];
    const branches = records(type['variants']).flatMap((variant) => this.#typed(variant['type']));
    const own = records(type['members']);
    return [...own, ...branches.flatMap((branch) => records(branch['members']))];
  }

  #branch(type: SchemaEntry, { tag, value }: { tag: string; value: string }): SchemaEntry[] {
    if (type['meta-type'] !== 'object' || type['tag'] !== tag) return [];
    return records(type['variants'])
      .filter((variant) => variant['case'] === value)
      .flatMap((variant) => this.#typed(variant['type']));
  }

  /** The types behind a name, looked for in lists and alternates, each once. */
  #typed(name: unknown, seen = new Set<unknown>()): SchemaEntry[] {
    const entry = typeof name === 'string' ? this.#entries.get(name) : undefined;
    if (entry === undefined || seen.has(name)) return [];
    seen.add(name);
    if (entry['meta-type'] === 'array') return this.#typed(entry['element-type'], seen);
    if (entry['meta-type'] !== 'alternate') return [entry];
    return records(entry['members']).flatMap((member) => this.#typed(member['type'], seen));
  }
}

/** Values as new servers list them, or as old ones did. */
function valuesOf(type: SchemaEntry): unknown[] {
  return [...records(type['members']).map((member) => member['name']), ...listed(type['values'])];
}

function listed(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? (value as unknown[]) : [];
}

function records(value: unknown): Readonly<Record<string, unknown>>[] {
  return listed(value).filter(
    (item): item is Readonly<Record<string, unknown>> => typeof item === 'object' && item !== null,
  );
}
