// SPDX-License-Identifier: Apache-2.0
// Checks a value against a type and gives the value in its static type.
//
// Members are checked in declaration order, members that nobody knows last, so the first error is
// the one QMP clients expect. The input is never changed; the result holds known members only.
// Two source forms: `json` (types must match) and `keyval` (leaves are strings, converted by type).
import { BlockError, JsonDouble, assert } from '../base/index.js';
import { parseBoolText, parseIntegerText, parseSizeText } from './keyval-values.js';
import { memberOf, resolveType } from './types.js';
/** `path` names the value in errors; members are `path.member`, or plain when it is empty. */
export function validate(type, value, path = '', form = 'json') {
    return check(type, value, { path, leaf: path === '' ? null : path, form });
}
function fail(message) {
    throw new BlockError('invalid-option', message);
}
function wrongType(place, expected) {
    return fail(`Invalid parameter type for '${place.path || 'null'}', expected: ${expected}`);
}
function isFields(value) {
    return (typeof value === 'object' &&
        value !== null &&
        !Array.isArray(value) &&
        !(value instanceof JsonDouble));
}
function check(type, value, place) {
    const target = resolveType(type);
    switch (target.kind) {
        case 'any':
            return value;
        case 'str':
            return typeof value === 'string' ? value : wrongType(place, 'string');
        case 'bool':
            return checkBool(value, place);
        case 'int':
            return checkInteger(target, value, place);
        case 'number':
            return checkNumber(value, place);
        case 'null':
            return value === null ? null : wrongType(place, 'null');
        case 'enum':
            return checkEnum(target, value, place);
        case 'list':
            if (!Array.isArray(value))
                return wrongType(place, 'array');
            return value.map((item, index) => {
                const member = place.form === 'keyval' ? `.${index}` : `[${index}]`;
                return check(target.element, item, { ...place, path: place.path + member, leaf: null });
            });
        case 'struct':
            return checkStruct(target.members, value, place);
        case 'union':
            return checkUnion(target, value, place);
        default:
            return checkAlternate(target, value, place);
    }
}
function checkBool(value, place) {
    if (place.form === 'json')
        return typeof value === 'boolean' ? value : wrongType(place, 'boolean');
    if (typeof value !== 'string')
        return wrongType(place, 'string');
    return parseBoolText(value) ?? fail(`Parameter '${place.path}' expects 'on' or 'off'`);
}
function checkNumber(value, place) {
    if (value instanceof JsonDouble)
        return value.value;
    if (typeof value === 'number' || typeof value === 'bigint')
        return Number(value);
    const parsed = place.form === 'keyval' && typeof value === 'string' ? Number(value) : Number.NaN;
    return Number.isFinite(parsed) && value !== '' ? parsed : wrongType(place, 'number');
}
function checkInteger(type, value, place) {
    let plain = value;
    if (place.form === 'keyval') {
        if (typeof value !== 'string')
            return wrongType(place, 'string');
        const parsed = type.suffixes ? parseSizeText(value) : parseIntegerText(value);
        const expected = type.suffixes ? 'a size' : 'integer';
        plain = parsed ?? fail(`Parameter '${place.path}' expects ${expected}`);
    }
    if (typeof plain === 'number' && !Number.isSafeInteger(plain))
        return wrongType(place, 'integer');
    if (typeof plain !== 'number' && typeof plain !== 'bigint')
        return wrongType(place, 'integer');
    const exact = BigInt(plain);
    if (exact < type.min || exact > type.max)
        return outOfRange(type, exact, place);
    const narrowed = Number(exact);
    if (Number.isSafeInteger(narrowed))
        return narrowed;
    if (!type.narrow)
        return exact;
    return fail(`Parameter '${place.path}' is too large: ${exact} is above 9007199254740991`);
}
function outOfRange(type, value, place) {
    const is64Bit = type.name === 'int64' || type.name === 'uint64' || type.name === 'size';
    if (!is64Bit)
        return fail(`Parameter '${place.leaf ?? 'null'}' expects ${type.name}_t`);
    if (place.form === 'keyval')
        return fail(`Parameter '${place.path}' expects integer`);
    if (value < 0n)
        return fail(`Parameter '${place.path}' expects a non-negative value`);
    return wrongType(place, 'integer');
}
function checkEnum(type, value, place) {
    if (typeof value !== 'string')
        return wrongType(place, 'string');
    if (type.values.includes(value))
        return value;
    return fail(`Parameter '${place.leaf ?? 'null'}' does not accept value '${value}'`);
}
function checkStruct(members, value, place) {
    if (!isFields(value))
        return wrongType(place, 'object');
    const result = {};
    checkMembers(members, value, place, result);
    refuseUnknown(value, result, place);
    return result;
}
function checkMembers(members, value, place, result) {
    for (const [name, entry] of Object.entries(members)) {
        const member = memberOf(entry);
        const given = Object.hasOwn(value, name) ? value[name] : undefined;
        const path = place.path === '' ? name : `${place.path}.${name}`;
        if (given !== undefined) {
            result[name] = check(member.type, given, { path, leaf: name, form: place.form });
        }
        else if (!member.optional) {
            fail(`Parameter '${path}' is missing`);
        }
    }
}
function refuseUnknown(value, known, place) {
    for (const name of Object.keys(value)) {
        if (value[name] === undefined || Object.hasOwn(known, name))
            continue;
        fail(`Parameter '${place.path === '' ? name : `${place.path}.${name}`}' is unexpected`);
    }
}
function checkUnion(type, value, place) {
    if (!isFields(value))
        return wrongType(place, 'object');
    const result = {};
    collectUnion(type, value, place, result);
    refuseUnknown(value, result, place);
    return result;
}
function collectUnion(type, value, place, result) {
    const branches = type.branches();
    const tag = enumOf(type, branches);
    checkMembers({ [type.discriminator]: tag, ...type.base }, value, place, result);
    const branch = branches[result[type.discriminator]];
    assert(branch !== undefined, `${type.name} has a branch for every tag`);
    if (branch === null)
        return;
    if (branch.kind === 'union')
        collectUnion(branch, value, place, result);
    else
        checkMembers(branch.members, value, place, result);
}
function enumOf(type, branches) {
    return { kind: 'enum', name: type.tagName, values: Object.keys(branches), facts: type.tagFacts };
}
function checkAlternate(type, value, place) {
    for (const branch of Object.values(type.branches)) {
        if (accepts(resolveType(branch), value, place.form))
            return check(branch, value, place);
    }
    return fail(`Invalid parameter type for '${place.leaf ?? 'null'}', expected: ${type.name}`);
}
function accepts(type, value, form) {
    switch (type.kind) {
        case 'struct':
        case 'union':
            return isFields(value);
        case 'list':
            return Array.isArray(value);
        case 'str':
        case 'enum':
            return typeof value === 'string';
        case 'null':
            return value === null;
        case 'bool':
            return form === 'keyval' ? typeof value === 'string' : typeof value === 'boolean';
        case 'int':
            if (form === 'keyval')
                return typeof value === 'string';
            return typeof value === 'number' || typeof value === 'bigint';
        default:
            return type.kind === 'any';
    }
}
