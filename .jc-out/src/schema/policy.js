// SPDX-License-Identifier: Apache-2.0
// What becomes of things marked `deprecated` or `unstable`: a client that must not depend on them
// is tested with a server that refuses them, or leaves them out of what it says.
//
// The marks are found by walking a valid value along its type. Only what is marked in the
// declarations is covered; a meaning that is deprecated without a name of its own is not.
import { AssertionFailure, BlockError } from '../base/index.js';
import { memberOf, resolveType } from './types.js';
export const ACCEPT_ALL = {
    deprecatedInput: 'accept',
    deprecatedOutput: 'accept',
    unstableInput: 'accept',
    unstableOutput: 'accept',
};
/** Throws kind `command-not-found` for a command, else `invalid-option`; `crash` asserts. */
export function requireAllowed(policy, { kind, name, features }) {
    const marks = [
        ['deprecated', policy.deprecatedInput],
        ['unstable', policy.unstableInput],
    ];
    for (const [mark, input] of marks) {
        if (input === 'accept' || !features.includes(mark))
            continue;
        const adjective = mark === 'deprecated' ? 'Deprecated' : 'Unstable';
        const message = `${adjective} ${kind} ${name} disabled by policy`;
        if (input === 'crash')
            throw new AssertionFailure(message);
        const errorKind = kind === 'command' ? 'command-not-found' : 'invalid-option';
        throw new BlockError(errorKind, message);
    }
}
/** Checks what a validated value uses of its type; throws as requireAllowed(). */
export function checkInput(policy, type, value) {
    if (policy.deprecatedInput === 'accept' && policy.unstableInput === 'accept')
        return;
    new InputWalk(policy).value(type, value);
}
/** The value without members that the policy hides; the value itself when it hides nothing. */
export function visibleOutput(policy, type, value) {
    const hidesNothing = policy.deprecatedOutput === 'accept' && policy.unstableOutput === 'accept';
    if (hidesNothing || type === null)
        return value;
    return pruned(policy, type, value);
}
class InputWalk {
    policy;
    constructor(policy) {
        this.policy = policy;
    }
    value(type, value) {
        const target = resolveType(type);
        if (target.kind === 'enum')
            this.#enum(target, value);
        else if (target.kind === 'list') {
            for (const item of value)
                this.value(target.element, item);
        }
        else if (target.kind === 'struct')
            this.#members(target.members, value);
        else if (target.kind === 'union') {
            const name = String(value[target.discriminator]);
            const features = target.tagFacts[name]?.features ?? [];
            requireAllowed(this.policy, { kind: 'value', name, features });
            for (const members of membersOf(target, value)) {
                this.#members(members, value);
            }
        }
        else if (target.kind === 'alternate') {
            const branch = branchFor(Object.values(target.branches), value);
            if (branch !== undefined)
                this.value(branch, value);
        }
    }
    #enum(type, value) {
        const name = String(value);
        const features = type.facts[name]?.features ?? [];
        requireAllowed(this.policy, { kind: 'value', name, features });
    }
    #members(members, value) {
        for (const [name, entry] of Object.entries(members)) {
            const given = value[name];
            if (given === undefined)
                continue;
            const { type, facts } = memberOf(entry);
            requireAllowed(this.policy, { kind: 'parameter', name, features: facts.features ?? [] });
            this.value(type, given);
        }
    }
}
function pruned(policy, type, value) {
    const target = resolveType(type);
    if (target.kind === 'list' && Array.isArray(value)) {
        return value.map((item) => pruned(policy, target.element, item));
    }
    if (target.kind !== 'struct' && target.kind !== 'union')
        return value;
    const fields = value;
    const all = target.kind === 'struct' ? [target.members] : membersOf(target, fields);
    const entries = new Map(all.flatMap((members) => Object.entries(members)));
    const result = {};
    for (const [name, member] of Object.entries(fields)) {
        const entry = entries.get(name);
        if (entry === undefined) {
            result[name] = member;
            continue;
        }
        const { type: inner, facts } = memberOf(entry);
        if (!isHidden(policy, facts))
            result[name] = pruned(policy, inner, member);
    }
    return result;
}
function isHidden(policy, { features = [] }) {
    const deprecated = policy.deprecatedOutput === 'hide' && features.includes('deprecated');
    return deprecated || (policy.unstableOutput === 'hide' && features.includes('unstable'));
}
/** Those of the base and of the branch that the value chose. */
function membersOf(type, value) {
    const branch = type.branches()[String(value[type.discriminator])] ?? null;
    if (branch === null)
        return [type.base];
    if (branch.kind === 'union')
        return [type.base, ...membersOf(branch, value)];
    return [type.base, branch.members];
}
function branchFor(branches, value) {
    const kinds = kindsOf(value);
    return branches.find((branch) => kinds.includes(resolveType(branch).kind));
}
function kindsOf(value) {
    if (value === null)
        return ['null'];
    if (Array.isArray(value))
        return ['list'];
    if (typeof value === 'object')
        return ['struct', 'union'];
    if (typeof value === 'string')
        return ['enum', 'str'];
    return typeof value === 'boolean' ? ['bool'] : ['int', 'number'];
}
