// SPDX-License-Identifier: Apache-2.0
// Options under dotted names, as messages about a reopen name them: `inject-error.0.event`.

type Options = Readonly<Record<string, unknown>>;

/** Members of objects and lists one by one, in the order of their names; the rest as it is. */
export function flatOptions(options: Options): ReadonlyMap<string, unknown> {
  const flat = new Map<string, unknown>();
  flatten(flat, '', options);
  return flat;
}

function flatten(flat: Map<string, unknown>, prefix: string, value: unknown): void {
  if (typeof value !== 'object' || value === null) {
    flat.set(prefix, value);
    return;
  }
  const members = value as Options;
  for (const name of Object.keys(members).toSorted()) {
    if (members[name] === undefined) continue;
    flatten(flat, prefix === '' ? name : `${prefix}.${name}`, members[name]);
  }
}

/** The option itself of a dotted name. */
export function optionOf(flatName: string): string {
  const dot = flatName.indexOf('.');
  return dot < 0 ? flatName : flatName.slice(0, dot);
}
