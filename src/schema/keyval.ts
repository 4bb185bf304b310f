// SPDX-License-Identifier: Apache-2.0
// Command-line options `key=value,key.sub=value,list.0=value` as nested objects of strings.
//
// A doubled comma is a comma in a value; the first value may stand without its key when the option
// has an implied one; a later value of the same key wins. Objects whose keys are all numbers
// become lists. The leaves are strings: validate(…, 'keyval') gives them their types.

import { BlockError } from '../base/index.js';

type Tree = { [key: string]: string | Tree };
export type KeyvalTree = { readonly [key: string]: string | KeyvalTree | readonly KeyvalValue[] };
export type KeyvalValue = string | KeyvalTree | readonly KeyvalValue[];

const MAX_DEPTH = 64;
const MAX_LIST = 65_536;
const FRAGMENT = /^(?:[a-zA-Z][a-zA-Z0-9_-]*|[0-9]{1,9})$/;
const KEY_BYTES = 127;

function fail(message: string): never {
  throw new BlockError('invalid-option', message);
}

interface Pair {
  readonly key: string;
  readonly value: string;
}

function splitPairs(text: string, impliedKey: string | null): Pair[] {
  const pairs: Pair[] = [];
  let rest = text;
  let implied = impliedKey;
  while (rest !== '') {
    const [piece, next] = takePiece(rest);
    const equals = piece.indexOf('=');
    if (equals < 0) {
      if (implied === null || piece === '') {
        fail(piece === '' ? `Invalid parameter ''` : `Expected '=' after parameter '${piece}'`);
      }
      pairs.push({ key: implied, value: piece });
    } else {
      pairs.push({ key: piece.slice(0, equals), value: piece.slice(equals + 1) });
    }
    implied = null;
    rest = next;
  }
  return pairs;
}

/** The text up to a single comma, with doubled commas undone, and what follows. */
function takePiece(text: string): [string, string] {
  let piece = '';
  let index = 0;
  while (index < text.length) {
    const comma = text.indexOf(',', index);
    if (comma < 0) return [piece + text.slice(index), ''];
    piece += text.slice(index, comma);
    if (text[comma + 1] !== ',') return [piece, text.slice(comma + 1)];
    piece += ',';
    index = comma + 2;
  }
  return [piece, ''];
}

function insert(root: Tree, { key, value }: Pair): void {
  const fragments = key.split('.');
  const bad =
    fragments.length > MAX_DEPTH ||
    key.length > KEY_BYTES ||
    /^[0-9]/.test(key) ||
    !fragments.every((fragment) => FRAGMENT.test(fragment));
  if (bad) fail(`Invalid parameter '${key}'`);
  let tree = root;
  for (const [depth, fragment] of fragments.slice(0, -1).entries()) {
    const next = Object.hasOwn(tree, fragment) ? tree[fragment] : undefined;
    if (typeof next === 'string') {
      fail(`Parameters '${fragments.slice(0, depth + 1).join('.')}.*' used inconsistently`);
    }
    const child: Tree = next ?? {};
    tree[fragment] = child;
    tree = child;
  }
  const leaf = fragments.at(-1) as string;
  if (Object.hasOwn(tree, leaf) && typeof tree[leaf] !== 'string') {
    fail(`Parameters '${key}.*' used inconsistently`);
  }
  tree[leaf] = value;
}

function listify(tree: Tree, path: string): KeyvalTree | readonly KeyvalValue[] {
  const keys = Object.keys(tree);
  const numbers = keys.filter((key) => /^[0-9]/.test(key));
  const at = (key: string): string => (path === '' ? key : `${path}.${key}`);
  const convert = (key: string): KeyvalValue => {
    const value = tree[key] as string | Tree;
    return typeof value === 'string' ? value : listify(value, at(key));
  };
  if (numbers.length === 0) return Object.fromEntries(keys.map((key) => [key, convert(key)]));
  if (numbers.length !== keys.length) fail(`Parameters '${path}.*' used inconsistently`);
  const items: KeyvalValue[] = [];
  for (let index = 0; index < Math.min(keys.length, MAX_LIST); index += 1) {
    const key = String(index);
    if (!Object.hasOwn(tree, key)) fail(`Parameter '${at(key)}' missing`);
    items.push(convert(key));
  }
  return items;
}

/** Nested strings of a keyval option; throws kind `invalid-option`. */
export function parseKeyval(text: string, impliedKey: string | null = null): KeyvalTree {
  const tree: Tree = {};
  for (const pair of splitPairs(text, impliedKey)) insert(tree, pair);
  return listify(tree, '') as KeyvalTree;
}
