// SPDX-License-Identifier: Apache-2.0
// The schema language: types as plain data, from which static types, validation, command-line
// parsing, introspection and documentation are derived. It knows no command and no driver.
//
// A type is an object with a `kind`; constructors below are the only way to make one. The static
// type it stands for is `Infer<typeof x>`. A union may name its branches lazily (a function), and a
// recursive type is made with deferred(), defined once when all its parts exist.
import { assert, must } from '../base/index.js';
const INT64_MIN = -(2n ** 63n);
const INT64_MAX = 2n ** 63n - 1n;
const UINT64_MAX = 2n ** 64n - 1n;
export const str = { kind: 'str' };
export const bool = { kind: 'bool' };
export const number = { kind: 'number' };
export const any = { kind: 'any' };
export const nothing = { kind: 'null' };
/** A signed 64-bit integer: `number` when safe, else `bigint`. */
export const int = {
    kind: 'int',
    name: 'int64',
    min: INT64_MIN,
    max: INT64_MAX,
    narrow: false,
    suffixes: false,
};
/** An unsigned 64-bit integer, narrowed to `number`. */
export const uint = {
    kind: 'int',
    name: 'uint64',
    min: 0n,
    max: UINT64_MAX,
    narrow: true,
    suffixes: false,
};
/** Bytes, narrowed to `number`; command lines accept the suffixes k M G T P E. */
export const size = { ...uint, name: 'size', suffixes: true };
export const uint32 = { ...uint, name: 'uint32', max: 2n ** 32n - 1n };
export const uint16 = { ...uint, name: 'uint16', max: 2n ** 16n - 1n };
export const int32 = {
    ...uint,
    name: 'int32',
    min: -(2n ** 31n),
    max: 2n ** 31n - 1n,
};
export function optional(type, facts = {}) {
    return { kind: 'member', type, optional: true, facts };
}
/** A mandatory member with documentation or features. */
export function required(type, facts = {}) {
    return { kind: 'member', type, optional: false, facts };
}
export function list(element) {
    return { kind: 'list', element };
}
export function enumeration(name, values, facts = {}) {
    return { kind: 'enum', name, values, facts };
}
export function struct(name, members, options = {}) {
    const base = options.base ?? {};
    for (const key of Object.keys(members))
        assert(!(key in base), `${name}.${key} is in the base`);
    return { kind: 'struct', name, members: { ...base, ...members }, facts: options.facts ?? {} };
}
export function union(name, options) {
    const { branches } = options;
    return {
        kind: 'union',
        name,
        base: options.base ?? {},
        discriminator: options.discriminator,
        tagName: options.tagName,
        branches: typeof branches === 'function' ? branches : () => branches,
        tagFacts: options.tagFacts ?? {},
        facts: options.facts ?? {},
    };
}
/** A value told apart by its JSON type: at most one branch each of string, object, integer, … */
export function alternate(name, branches) {
    return { kind: 'alternate', name, branches };
}
/** A type that is used before it can be written down (recursion across folders). */
export function deferred(name) {
    let target;
    return {
        kind: 'deferred',
        name,
        define(type) {
            assert(target === undefined || target === type, `type ${name} is defined twice`);
            target = type;
        },
        resolve: () => resolveType(must(target, `type ${name} is not defined`)),
    };
}
export function resolveType(type) {
    return type.kind === 'deferred' ? type.resolve() : type;
}
/** The member in one shape, whether it was given bare or with facts. */
export function memberOf(entry) {
    if (entry.kind === 'member')
        return entry;
    return { kind: 'member', type: entry, optional: false, facts: {} };
}
