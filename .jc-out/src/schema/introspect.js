// SPDX-License-Identifier: Apache-2.0
// What query-qmp-schema answers: commands and events by name, their types by numbers.
//
// Names of types are masked on purpose, so that clients probe for members and features and never
// for type names. Equal types share an entry; builtin types keep their names.
import { memberOf, resolveType } from './types.js';
const BUILTINS = [
    ['str', 'string'],
    ['int', 'int'],
    ['number', 'number'],
    ['bool', 'boolean'],
    ['null', 'null'],
    ['any', 'value'],
];
class Introspection {
    entries = [];
    #names = new Map();
    #empty = { kind: 'struct', name: '', members: {}, facts: {} };
    builtins() {
        for (const [name, json] of BUILTINS) {
            this.entries.push({ name, 'meta-type': 'builtin', 'json-type': json });
        }
    }
    command(declaration) {
        this.entries.push({
            name: declaration.name,
            'meta-type': 'command',
            'arg-type': this.nameOf(declaration.args),
            'ret-type': this.nameOf(declaration.returns ?? this.#empty),
            ...(declaration.allowOob ? { 'allow-oob': true } : {}),
            ...features({ features: declaration.features }),
        });
    }
    event(declaration) {
        const argType = this.nameOf(declaration.data);
        this.entries.push({ name: declaration.name, 'meta-type': 'event', 'arg-type': argType });
    }
    nameOf(type) {
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
                if (known !== undefined)
                    return known;
                const name = String(this.#names.size);
                this.#names.set(key, name);
                this.#define(name, target);
                return name;
            }
        }
    }
    #list(element) {
        const inner = this.nameOf(element);
        const name = `[${inner}]`;
        if (!this.#names.has(name)) {
            this.#names.set(name, name);
            this.entries.push({ name, 'meta-type': 'array', 'element-type': inner });
        }
        return name;
    }
    #define(name, type) {
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
    #enum(name, type) {
        const members = type.values.map((value) => ({
            name: value,
            ...features(type.facts[value] ?? {}),
        }));
        this.entries.push({ name, 'meta-type': 'enum', members, values: type.values });
    }
    #union(name, type) {
        const branches = type.branches();
        const tag = {
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
    #members(members) {
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
function isEmpty(type) {
    return type.kind === 'struct' && Object.keys(type.members).length === 0;
}
function features(facts) {
    const list = facts.features ?? [];
    return list.length === 0 ? {} : { features: list };
}
export function introspect(commands, events) {
    const introspection = new Introspection();
    introspection.builtins();
    for (const declaration of commands)
        introspection.command(declaration);
    for (const declaration of events)
        introspection.event(declaration);
    return introspection.entries;
}
