// SPDX-License-Identifier: Apache-2.0
// `NAME=VALUE,…` of --image-opts and of `open -o` as a tree: dots lead into it, numbers make lists.
//
// A comma is doubled inside a value, the last value of a name counts, and a name alone means `on`
// (`no…` means `off`), which the user is warned of. Unlike options of objects any name is accepted:
// the driver that it goes to refuses it.

import { BlockError, IMAGE_LIMITS } from '../../../base/index.js';
import type { KeyvalTree, KeyvalValue } from '../../../schema/index.js';
import { report } from '../../program.js';
import type { Program } from '../../program.js';

interface Pair {
  readonly name: string;
  readonly value: string;
}

/** `implied`: the name that a first value without one belongs to. */
export function optionTree(
  text: string,
  program: Program,
  implied: string | null = null,
): KeyvalTree {
  const values = new Map<string, string>();
  for (let rest = text, first = true; rest !== ''; first = false) {
    const [pair, left] = takePair(rest, { program, implied: first ? implied : null });
    values.set(pair.name, pair.value);
    rest = left.startsWith(',') ? left.slice(1) : left;
  }
  return treeOf(values);
}

function takePair(
  text: string,
  { program, implied }: { readonly program: Program; readonly implied: string | null },
): [Pair, string] {
  const end = /[=,]|$/.exec(text)?.index ?? text.length;
  const name = text.slice(0, end);
  if (text[end] === '=') {
    const [value, rest] = takeValue(text.slice(end + 1));
    return [{ name, value }, rest];
  }
  if (implied !== null) {
    const [value, rest] = takeValue(text);
    return [{ name: implied, value }, rest];
  }
  const isOff = name.startsWith('no');
  const pair = isOff ? { name: name.slice(2), value: 'off' } : { name, value: 'on' };
  const hint = `Please use ${pair.name}=${pair.value} instead\n`;
  report(program, `warning: short-form boolean option '${name}' deprecated`, hint);
  return [pair, text.slice(end)];
}

/** Up to a single comma. */
function takeValue(text: string): [string, string] {
  const match = /^(?:[^,]|,,)*/.exec(text);
  const whole = match?.[0] ?? '';
  return [whole.replaceAll(',,', ','), text.slice(whole.length)];
}

type Branch = Map<string, string | Branch>;

function treeOf(values: ReadonlyMap<string, string>): KeyvalTree {
  const root: Branch = new Map();
  for (const [name, value] of values) insert(root, name.split('.'), value);
  return plain(root, '') as KeyvalTree;
}

function insert(root: Branch, names: readonly string[], value: string): void {
  if (names.length > IMAGE_LIMITS.optionDepth) {
    throw new BlockError('invalid-option', `Option '${names[0] ?? ''}.…' has too many parts`);
  }
  let branch = root;
  for (const name of names.slice(0, -1)) {
    const below = branch.get(name);
    if (below instanceof Map) branch = below;
    else {
      const made: Branch = new Map();
      if (below !== undefined) keepBeside(made, below, { name });
      branch.set(name, made);
      branch = made;
    }
  }
  const last = names.at(-1) ?? '';
  const present = branch.get(last);
  if (present instanceof Map) keepBeside(present, value, { name: last });
  else branch.set(last, value);
}

/** A name with a value of its own and others below it: only the checks of qcow2 have both. */
function keepBeside(
  branch: Branch,
  value: string,
  { name }: { readonly name: string },
): void {
  if (name !== 'overlap-check') {
    const text = 'Cannot reference an existing block device with additional options';
    throw new BlockError('invalid-option', `${text} or a new filename`);
  }
  branch.set('', value);
}

function plain(branch: Branch, path: string): KeyvalValue {
  const both = branch.get('');
  if (path.endsWith('overlap-check') && typeof both === 'string') {
    const template = branch.get('template') ?? both;
    if (typeof template === 'string' && template !== both) {
      const start = "Conflicting values for qcow2 options 'overlap-check'";
      const text = `${start} ('${both}') and 'overlap-check.template' ('${template}')`;
      throw new BlockError('invalid-option', text);
    }
    branch.delete('');
    branch.set('template', both);
  }
  const entries = [...branch].map(([name, value]) => {
    const below = path === '' ? name : `${path}.${name}`;
    return [name, typeof value === 'string' ? value : plain(value, below)] as const;
  });
  const isList = path !== '' && entries.length > 0 && entries.every(([name], at) => {
    return branch.has(String(at)) && /^\d+$/.test(name);
  });
  if (!isList) return Object.fromEntries(entries);
  return entries.map((_, at) => {
    const value = branch.get(String(at)) ?? '';
    return typeof value === 'string' ? value : plain(value, `${path}.${at}`);
  });
}
