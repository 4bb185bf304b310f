// SPDX-License-Identifier: Apache-2.0
// One option's text, checked against the type that its driver declares: sizes take suffixes, and
// what cannot be is refused in the words of the reference's command lines. What is given back are
// texts again, such as the declaration's own check takes.

import { BlockError, MAX_OFFSET, parseSize } from '../../../base/index.js';
import { memberOf, resolveType } from '../../../schema/index.js';
import type {
  EnumType,
  IntegerType,
  KeyvalTree,
  KeyvalValue,
  Type,
  UnionType,
} from '../../../schema/index.js';

export interface ValuePlace {
  /** Dotted, from its node on. */
  readonly name: string;
  readonly driver: string;
  /** Called with the dotted name of an option that nobody knows. */
  readonly note: (name: string) => void;
}

/** Options that are declared as numbers and are amounts of bytes. */
const SIZES = /^(size|offset|align|(max|opt)-.*|.*cache-size|.*entry-size|prealloc-.*)$/;
const SIZE_HINT =
  'Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-\n' +
  'and exabytes, respectively.';
const TRUE_OR_FALSE = /^(on|off|yes|no|true|false|y|n)$/;
const MOST_SIZE = 2 ** 64 - 2048;
const DIGITS = /^[+-]?(0x[0-9a-f]+|\d+)$/i;
/** Filters that are checked as commands are. */
export const CHECKED_AS_COMMANDS = new Set(['copy-before-write', 'snapshot-access']);

export function mistake(text: string, hint?: string): BlockError {
  return new BlockError('invalid-option', text, hint === undefined ? {} : { hint });
}

export function isTree(value: unknown): value is KeyvalTree {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** Undefined where the option has no effect at all. */
export function fitValue(type: Type, value: KeyvalValue, place: ValuePlace): unknown {
  if (isTree(value)) return fitTree(type, value, place);
  if (typeof value !== 'string') return fitList(type, value, place);
  switch (type.kind) {
    case 'bool':
      if (TRUE_OR_FALSE.test(value)) return value;
      throw mistake(`Parameter '${place.name}' expects 'on' or 'off'`);
    case 'int':
      return fitNumber(type, value, place.name);
    case 'enum':
      return fitWord(type, value, place);
    case 'alternate': {
      const [word] = Object.values(type.branches).map(resolveType).filter(isWord);
      return word === undefined ? value : fitWord(word, value, place);
    }
    default:
      return value;
  }
}

function isWord(type: Type): type is EnumType {
  return type.kind === 'enum';
}

function fitNumber(type: IntegerType<number | bigint>, value: string, name: string): string {
  const isSize = type.suffixes || SIZES.test(name);
  if (!isSize) {
    if (name === 'latency-ns' && value.startsWith('-')) throw mistake(`${name} is invalid`);
    if (DIGITS.test(value)) return value;
    throw mistake(`Parameter '${name}' expects a number`);
  }
  const parsed = parseSize(value, 1, MOST_SIZE);
  if (parsed.ok) return String(Math.min(parsed.bytes, MAX_OFFSET));
  throw mistake(`Parameter '${name}' expects a non-negative number below 2^64`, SIZE_HINT);
}

function fitWord(type: EnumType, value: string, { name, driver }: ValuePlace): string {
  if (type.values.includes(value) || CHECKED_AS_COMMANDS.has(driver)) return value;
  if (name === 'discard') {
    if (value === 'on') return 'unmap';
    if (value === 'off') return 'ignore';
    throw mistake('Invalid discard option');
  }
  if (name.startsWith('overlap-check')) {
    const start = `Unsupported value '${value}' for qcow2 option 'overlap-check'.`;
    throw mistake(`${start} Allowed are any of the following: ${type.values.join(', ')}`);
  }
  throw mistake(`invalid parameter value: ${value}`);
}

function fitTree(type: Type, tree: KeyvalTree, place: ValuePlace): unknown {
  const struct = structOf(type);
  if (struct === null) {
    if (type.kind === 'union') return fitUnion(type, tree);
    place.note([place.name, ...Object.keys(tree).slice(0, 1)].join('.'));
    return undefined;
  }
  const result: Record<string, unknown> = {};
  for (const [key, value] of Object.entries(tree)) {
    const member = struct.members[key];
    const name = `${place.name}.${key}`;
    if (member === undefined) place.note(name);
    else {
      const fitted = fitValue(resolveType(memberOf(member).type), value, { ...place, name });
      if (fitted !== undefined) result[key] = fitted;
    }
  }
  return result;
}

/** The image itself says which branch it is: there need not be a discriminator. */
function fitUnion(type: UnionType, tree: KeyvalTree): KeyvalTree {
  const branches = Object.values(type.branches()).map((branch) =>
    branch === null ? null : structOf(resolveType(branch)),
  );
  for (const name of Object.keys(tree)) {
    if (name === type.discriminator) continue;
    if (branches.some((branch) => branch?.members[name] !== undefined)) continue;
    throw mistake(`Parameter '${name}' is unexpected`);
  }
  return tree;
}

function structOf(type: Type): Extract<Type, { kind: 'struct' }> | null {
  if (type.kind === 'struct') return type;
  if (type.kind !== 'alternate') return null;
  const found = Object.values(type.branches).map(resolveType);
  return found.find((each) => each.kind === 'struct') ?? null;
}

/** Rules of blkdebug: what is wrong is told with the name of their section. */
function fitList(type: Type, values: readonly KeyvalValue[], place: ValuePlace): unknown {
  const element = type.kind === 'list' ? resolveType(type.element) : null;
  if (element === null) {
    place.note(`${place.name}.0`);
    return undefined;
  }
  return values.map((value) => {
    if (element.kind !== 'struct' || !isTree(value)) return fitValue(element, value, place);
    return fitRule(element, value, place);
  });
}

function fitRule(
  type: Extract<Type, { kind: 'struct' }>,
  rule: KeyvalTree,
  place: ValuePlace,
): unknown {
  const result: Record<string, unknown> = {};
  for (const [key, value] of Object.entries(rule)) {
    const member = type.members[key];
    if (member === undefined) {
      throw mistake(`[${place.name}] section doesn't support the option '${key}'`);
    }
    result[key] = fitValue(resolveType(memberOf(member).type), value, { ...place, name: key });
  }
  for (const [name, entry] of Object.entries(type.members)) {
    if (memberOf(entry).optional || result[name] !== undefined) continue;
    if (name === 'event') throw mistake('Missing event name for rule');
    result[name] = '0';
  }
  return result;
}
