// SPDX-License-Identifier: Apache-2.0
// Writes JSON as the QMP peers do: `, ` and `: ` between members, everything outside printable
// ASCII escaped, 64-bit integers exact, doubles told apart from integers.

import { JsonDouble } from '../base/index.js';
import { assert } from '../base/index.js';

/** Text that is already JSON and is written as it stands (an echoed id). */
export class RawJson {
  constructor(readonly text: string) {}
}

const SHORT: Readonly<Record<string, string>> = {
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

export function quoteJson(text: string): string {
  return `"${text.replace(SPECIAL, escapeUnit)}"`;
}

function escapeUnit(unit: string): string {
  const code = unit.charCodeAt(0).toString(16).toUpperCase().padStart(4, '0');
  return SHORT[unit] ?? `\\u${code}`;
}

export interface WriteOptions {
  /** Four spaces of indentation and one member on each line. */
  readonly pretty?: boolean;
}

/** JSON text of a value; members that are undefined are left out. */
export function writeJson(value: unknown, options: WriteOptions = {}): string {
  return write(value, options.pretty === true ? '\n' : null);
}

/**
 * The same text in pieces, so that long lists are never one string; an iterable of any kind is
 * written as a list. Members that are written as a whole may be `RawJson` and the like.
 */
export function* jsonPieces(value: unknown, options: WriteOptions = {}): Generator<string> {
  yield* piecesOf(value, options.pretty === true ? '\n' : null);
}

function* piecesOf(value: unknown, line: string | null): Generator<string> {
  if (!isDivisible(value)) {
    yield write(value, line);
    return;
  }
  const inner = line === null ? null : `${line}    `;
  const isList = Symbol.iterator in value;
  let isFirst = true;
  yield isList ? '[' : '{';
  for (const item of isList ? value : Object.entries(value)) {
    const [name, member] = isList ? [null, item] : (item as [string, unknown]);
    if (name !== null && member === undefined) continue;
    yield `${isFirst ? '' : line === null ? ', ' : ','}${inner ?? ''}`;
    if (name !== null) yield `${quoteJson(name)}: `;
    yield* piecesOf(member, inner);
    isFirst = false;
  }
  yield `${line ?? ''}${isList ? ']' : '}'}`;
}

function isDivisible(value: unknown): value is object | Iterable<unknown> {
  if (typeof value !== 'object' || value === null) return false;
  return !(value instanceof JsonDouble) && !(value instanceof RawJson);
}

function write(value: unknown, line: string | null): string {
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

function writeComposite(value: unknown, line: string | null): string {
  if (value === null || value === undefined) return 'null';
  if (value instanceof JsonDouble) return String(value.value);
  if (value instanceof RawJson) return value.text;
  const inner = line === null ? null : `${line}    `;
  if (Array.isArray(value)) {
    return bracket('[]', value.map((item) => write(item, inner)), line);
  }
  assert(typeof value === 'object', `a ${typeof value} has no JSON form`);
  const members: string[] = [];
  for (const [name, member] of Object.entries(value)) {
    if (member !== undefined) members.push(`${quoteJson(name)}: ${write(member, inner)}`);
  }
  return bracket('{}', members, line);
}

function bracket(pair: '[]' | '{}', items: readonly string[], line: string | null): string {
  const open = pair.charAt(0);
  const close = pair.charAt(1);
  if (line === null) return `${open}${items.join(', ')}${close}`;
  if (items.length === 0) return `${open}${line}${close}`;
  return `${open}${line}    ${items.join(`,${line}    `)}${line}${close}`;
}
