// SPDX-License-Identifier: Apache-2.0
// Options under dotted names, as messages about a reopen name them: `inject-error.0.event`.
/** Members of objects and lists one by one, in the order of their names; the rest as it is. */
export function flatOptions(options) {
    const flat = new Map();
    flatten(flat, '', options);
    return flat;
}
function flatten(flat, prefix, value) {
    if (typeof value !== 'object' || value === null) {
        flat.set(prefix, value);
        return;
    }
    const members = value;
    for (const name of Object.keys(members).toSorted()) {
        if (members[name] === undefined)
            continue;
        flatten(flat, prefix === '' ? name : `${prefix}.${name}`, members[name]);
    }
}
/** The option itself of a dotted name. */
export function optionOf(flatName) {
    const dot = flatName.indexOf('.');
    return dot < 0 ? flatName : flatName.slice(0, dot);
}
