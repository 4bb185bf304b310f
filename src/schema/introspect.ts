// SPDX-License-Identifier: Apache-2.0
// What query-qmp-schema answers: commands and events by name, their types by numbers.
//
// Names of types are masked on purpose, so that clients probe for members and features and never
// for type names. Equal types share an entry; builtin types keep their names.

import type { CommandDeclaration, EventDeclaration } from './declare.js';
import { memberOf, resolveType } from './types.js';
import type { EnumType, Facts, Members, StructType, Type, UnionType } from './types.js';

export type SchemaEntry = Readonly<Record<string, unknown>> & {
  readonly name: string;
  readonly 'meta-type':
    | 'builtin'
    | 'enum'
    | 'array'
    | 'object'
    | 'alternate'
    | 'command'
    | 'event';
};

const BUILTINS: readonly (readonly [string, string])[] = [
  ['str', 'string'],
  ['int', 'int'],
  ['number', 'number'],
  ['bool', 'boolean'],
  ['null', 'null'],
  ['any', 'value'],
];

type Resolved = ReturnType<typeof resolveType>;

class Introspection {
  readonly entries: SchemaEntry[] = [];
  readonly #names = new Map<Resolved | string, string>();
  readonly #empty: StructType = { kind: 'struct', name: '', members: {}, facts: {} };

  builtins(): void {
    for (const [name, json] of BUILTINS) {
      this.entries.push({ name, 'meta-type': 'builtin', 'json-type': json });
    }
  }

  command(declaration: CommandDeclaration): void {
    this.entries.push({
      name: declaration.name,
      'meta-type': 'command',
      'arg-type': this.nameOf(declaration.args),
      'ret-type': this.nameOf(declaration.returns ?? this.#empty),
      ...(declaration.allowOob ? { 'allow-oob': true } : {}),
      ...features({ features: declaration.features }),
    });
  }

  event(declaration: EventDeclaration): void {
    const argType = this.nameOf(declaration.data);
    this.entries.push({ name: declaration.name, 'meta-type': 'event', 'arg-type': argType });
  }

  nameOf(type: Type): string {
    const target = resolveType(type);
    switch (target.kind) {
      case 'str':
      case 'int':
      case 'number':
      case 'bool':
      case 'null':
      case 'any':
        return target.kind;
      case 'list':
        return this.#list(target.element);
      default: {
        const key = isEmpty(target) ? this.#empty : target;
        const known = this.#names.get(key);
        if (known !== undefined) return known;
        const name = String(this.#names.size);
        this.#names.set(key, name);
        this.#define(name, target);
        return name;
      }
    }
  }

  #list(element: Type): string {
    const inner = this.nameOf(element);
    const name = `[${inner}]`;
    if (!this.#names.has(name)) {
      this.#names.set(name, name);
      this.entries.push({ name, 'meta-type': 'array', 'element-type': inner });
    }
    return name;
  }

  #define(name: string, type: Resolved): void {
    switch (type.kind) {
      case 'enum':
        this.#enum(name, type);
        return;
      case 'struct':
        this.entries.push({
          name,
          'meta-type': 'object',
          members: this.#members(type.members),
          ...features(type.facts),
        });
        return;
      case 'union':
        this.#union(name, type);
        return;
      case 'alternate': {
        const members = Object.values(type.branches).map((branch) => ({
          type: this.nameOf(branch),
        }));
        this.entries.push({ name, 'meta-type': 'alternate', members });
        return;
      }
      default:
    }
  }

  #enum(name: string, type: EnumType): void {
    const members = type.values.map((value) => ({
      name: value,
      ...features(type.facts[value] ?? {}),
    }));
    this.entries.push({ name, 'meta-type': 'enum', members, values: type.values });
  }

  #union(name: string, type: UnionType): void {
    const branches = type.branches();
    const tag: EnumType = {
      kind: 'enum',
      name: type.tagName,
      values: Object.keys(branches),
      facts: type.tagFacts,
    };
    const members = this.#members({ [type.discriminator]: tag, ...type.base });
    const variants = Object.entries(branches).map(([value, branch]) => ({
      case: value,
      type: this.nameOf(branch ?? this.#empty),
    }));
    this.entries.push({
      name,
      'meta-type': 'object',
      members,
      tag: type.discriminator,
      variants,
      ...features(type.facts),
    });
  }

  #members(members: Members): readonly Readonly<Record<string, unknown>>[] {
    return Object.entries(members).map(([name, entry]) => {
      const member = memberOf(entry);
      return {
        name,
        type: this.nameOf(member.type),
        ...(member.optional ? { default: null } : {}),
        ...features(member.facts),
      };
    });
  }
}

function isEmpty(type: Resolved): boolean {
  return type.kind === 'struct' && Object.keys(type.members).length === 0;
}

function features(facts: Facts): { readonly features?: readonly string[] } {
  const list = facts.features ?? [];
  return list.length === 0 ? {} : { features: list };
}

export function introspect(
  commands: Iterable<CommandDeclaration>,
  events: Iterable<EventDeclaration>,
): readonly SchemaEntry[] {
  const introspection = new Introspection();
  introspection.builtins();
  for (const declaration of commands) introspection.command(declaration);
  for (const declaration of events) introspection.event(declaration);
  return introspection.entries;
}
