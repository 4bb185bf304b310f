// SPDX-License-Identifier: Apache-2.0
// Writes JSON as the QMP peers do: `, ` and `: ` between members, everything outside printable
// ASCII escaped, 64-bit integers exact, doubles told apart from integers.
import { JsonDouble } from '../base/index.js';
import { assert } from '../base/index.js';
/** Text that is already JSON and is written as it stands (an echoed id). */
export class RawJson {
    text;
    constructor(text) {
        this.text = text;
    }
}
const SHORT = {
    '"': '\\"',
    '\\': '\\\\',
    '\b': '\\b',
    '\f': '\\f',
    '\n': '\\n',
    '\r': '\\r',
    '\t': '\\t',
};
// eslint-disable-next-line no-control-regex
const SPECIAL = /["\\\u0000-\u001f\u007f-\uffff]/g;
export function quoteJson(text) {
    return `"${text.replace(SPECIAL, escapeUnit)}"`;
}
function escapeUnit(unit) {
    const code = unit.charCodeAt(0).toString(16).toUpperCase().padStart(4, '0');
    return SHORT[unit] ?? `\\u${code}`;
}
/** JSON text of a value; members that are undefined are left out. */
export function writeJson(value, options = {}) {
    return write(value, options.pretty === true ? '\n' : null);
}
function write(value, line) {
    switch (typeof value) {
        case 'string':
            return quoteJson(value);
        case 'boolean':
        case 'bigint':
            return String(value);
        case 'number':
            assert(Number.isFinite(value), 'a JSON number is finite');
            return String(value);
        default:
            return writeComposite(value, line);
    }
}
function writeComposite(value, line) {
    if (value === null || value === undefined)
        return 'null';
    if (value instanceof JsonDouble)
        return String(value.value);
    if (value instanceof RawJson)
        return value.text;
    const inner = line === null ? null : `${line}    `;
    if (Array.isArray(value)) {
        return bracket('[]', value.map((item) => write(item, inner)), line);
    }
    assert(typeof value === 'object', `a ${typeof value} has no JSON form`);
    const members = [];
    for (const [name, member] of Object.entries(value)) {
        if (member !== undefined)
            members.push(`${quoteJson(name)}: ${write(member, inner)}`);
    }
    return bracket('{}', members, line);
}
function bracket(pair, items, line) {
    const open = pair.charAt(0);
    const close = pair.charAt(1);
    if (line === null)
        return `${open}${items.join(', ')}${close}`;
    if (items.length === 0)
        return `${open}${line}${close}`;
    return `${open}${line}    ${items.join(`,${line}    `)}${line}${close}`;
}
